"""A model repository for Triton Inference Server: the model's file, what belongs to it, and ``config.pbtxt``."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from export.audit import external_files, read_model
from export.triton.config import TritonConfig, TritonSettings, make_config
from sparsegpt_core.errors import InputError
from sparsegpt_core.files import atomic_path, staged_folder, write_text, writing

__all__ = ["PlanSignature", "TritonModel", "write_repository"]

_CONFIG = "config.pbtxt"


@dataclass(frozen=True)
class PlanSignature:
    """A TensorRT plan's inputs and outputs, as a graph without nodes, and the largest batch of its profile."""

    graph: onnx.GraphProto
    largest_batch: int


@dataclass(frozen=True)
class TritonModel:
    """What was written: ``folder`` is the model's in the repository, ``files`` are those in it."""

    folder: Path
    config: TritonConfig
    files: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return what ``triton-export --json`` prints."""
        config = self.config
        tensors = {
            field: [{"name": each.name, "data_type": each.data_type, "dims": list(each.dims)} for each in values]
            for field, values in (("inputs", config.inputs), ("outputs", config.outputs))
        }
        return {
            "folder": str(self.folder),
            "name": config.settings.name,
            "version": config.settings.version,
            "platform": config.platform,
            "max_batch_size": config.max_batch_size,
            "note": config.note,
            **tensors,
            "files": list(self.files),
        }


def write_repository(
    model: Path, repository: Path, settings: TritonSettings, plan: PlanSignature | None = None, force: bool = False
) -> TritonModel:
    """Put a model into a repository, wholly or not at all.

    Args:
        model: An .onnx file, whose external data comes along, or a TensorRT plan.
        repository: What ``tritonserver --model-repository`` is given; made where it is not there.
        settings: How to serve it.
        plan: What the plan takes and gives; None where ``model`` is an .onnx file.
        force: Replace this version, and the ``config.pbtxt`` of all versions, where they are there already.

    Raises:
        InputError: The model cannot be read or served as asked, or the version is there already.
    """
    if plan:
        config = make_config(plan.graph, "tensorrt_plan", settings, plan.largest_batch)
        sources = {"model.plan": model}
    else:
        proto = _read(model)
        config = make_config(proto.graph, "onnxruntime_onnx", settings)
        sources = {"model.onnx": model, **_external_data(proto, model)}
    for source in sources.values():
        if not source.is_file():
            raise InputError(f"no file at {source}", f"{model} is incomplete without it.")
    folder, text = repository / settings.name, config.to_text()
    if not force:
        _check_free(folder, settings.version, text)
    _write(folder, str(settings.version), text, sources)
    return TritonModel(folder, config, (_CONFIG, *(f"{settings.version}/{name}" for name in sources)))


def _read(path: Path) -> onnx.ModelProto:
    """Read a graph, without the external data: of that only the names are needed."""
    model = read_model(path)
    if not model.graph.output:
        raise InputError(f"{path} is truncated or no ONNX file: its graph has no outputs", "Export the model again.")
    return model


def _external_data(model: onnx.ModelProto, path: Path) -> dict[str, Path]:
    """Return the files that hold the model's large tensors, by their paths beside it."""
    found = {str(Path(name)): file for name, file in external_files(model, path).items()}
    if "model.onnx" in found:
        raise InputError(f"{path} has external data in model.onnx, its own name here", "Give the data another name.")
    return found


def _check_free(folder: Path, version: int, config: str) -> None:
    there, written = folder / str(version), folder / _CONFIG
    if there.exists():
        raise InputError(f"{there} is there already", "Give another --version, or --force to replace it.")
    if written.exists() and written.read_bytes() != config.encode():
        raise InputError(
            f"{written} holds for all versions, and differs from what this one needs",
            "Give another --name, or --force to replace it.",
        )


def _write(target: Path, version: str, config: str, sources: Mapping[str, Path]) -> None:
    """Write the model's folder under a temporary name, then move it, or its new parts, to its place."""
    with staged_folder(target) as folder:
        staged = folder / target.name
        for name, source in sources.items():
            with atomic_path(staged / version / name) as path:
                shutil.copyfile(source, path)
        write_text(staged / _CONFIG, config)
        with writing(target):
            if not target.exists():
                staged.rename(target)
                return
            if (target / version).exists():
                (target / version).rename(folder / "replaced")
            (staged / version).rename(target / version)
            (staged / _CONFIG).replace(target / _CONFIG)
