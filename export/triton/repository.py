"""Writes a model repository for Triton Inference Server: the model's files and ``config.pbtxt``."""

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
    """The inputs and outputs of a TensorRT plan.

    Example:
        >>> signature = PlanSignature(onnx.GraphProto(name="resnet18"), largest_batch=32)
    """

    graph: onnx.GraphProto
    """A graph without nodes, with the plan's inputs and outputs."""
    largest_batch: int
    """The largest batch of the plan's profile."""


@dataclass(frozen=True)
class TritonModel:
    """A model that was written to a repository."""

    folder: Path
    """The model's folder in the repository."""
    config: TritonConfig
    """The content of ``config.pbtxt``."""
    files: tuple[str, ...]
    """The files in the folder, by their paths in it."""

    def to_json(self) -> dict[str, Any]:
        """Return the content of ``triton-export --json``."""
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
            "note": config.no_batching_reason,
            **tensors,
            "files": list(self.files),
        }


def write_repository(
    path: Path, repository: Path, settings: TritonSettings, plan: PlanSignature | None = None, force: bool = False
) -> TritonModel:
    """Put a model into a repository. A failure leaves the repository as it was.

    Args:
        path: An .onnx file (its external data is copied too) or a TensorRT plan.
        repository: The folder for ``tritonserver --model-repository``; created if it does not exist.
        settings: How Triton serves the model.
        plan: The plan's inputs and outputs; None for an .onnx file.
        force: Whether to replace an existing version, and the ``config.pbtxt`` that all versions share.

    Raises:
        InputError: The model cannot be read or served with these settings, or the version exists.

    Example:
        >>> from export.writing import export_model, save_model
        >>> from torch import nn
        >>> save_model(export_model(nn.Conv2d(3, 8, 3).eval(), (3, 32, 32)), Path("conv.onnx"))
        >>> written = write_repository(Path("conv.onnx"), Path("repository"), TritonSettings("conv"))
        >>> written.files, written.config.max_batch_size
        (('config.pbtxt', '1/model.onnx'), 32)
    """
    if plan:
        config = make_config(plan.graph, "tensorrt_plan", settings, plan.largest_batch)
        sources = {"model.plan": path}
    else:
        model = _read(path)
        config = make_config(model.graph, "onnxruntime_onnx", settings)
        sources = {"model.onnx": path, **_external_data(model, path)}
    for source in sources.values():
        if not source.is_file():
            raise InputError(f"no file at {source}", f"{path} is incomplete without it.")
    folder, text = repository / settings.name, config.to_text()
    if not force:
        _check_free(folder, settings.version, text)
    _write(folder, str(settings.version), text, sources)
    return TritonModel(folder, config, (_CONFIG, *(f"{settings.version}/{name}" for name in sources)))


def _read(path: Path) -> onnx.ModelProto:
    """Read a model without its external data, which is copied as files."""
    model = read_model(path)
    if not model.graph.output:
        raise InputError(
            f"{path} is truncated or not an ONNX file: its graph has no outputs", "Export the model again."
        )
    return model


def _external_data(model: onnx.ModelProto, path: Path) -> dict[str, Path]:
    """Return the files with the model's external data, by their paths in its folder."""
    found = {str(Path(name)): file for name, file in external_files(model, path).items()}
    if "model.onnx" in found:
        raise InputError(
            f"{path} has external data in model.onnx, the model's own name in the repository",
            "Give the data another name.",
        )
    return found


def _check_free(folder: Path, version: int, config: str) -> None:
    existing, written = folder / str(version), folder / _CONFIG
    if existing.exists():
        raise InputError(f"{existing} exists", "Give another `version`, or `force=True` to replace it.")
    if written.exists() and written.read_bytes() != config.encode():
        raise InputError(
            f"{written} applies to all versions, and this version needs another one",
            "Give another `name`, or `force=True` to replace it.",
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
