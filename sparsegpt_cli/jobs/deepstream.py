"""Writes a DeepStream configuration for a plan or an ONNX file. Loads no torch."""

from __future__ import annotations

import os
from pathlib import Path

from deploy.builder import load_plan
from deploy.graph import Graph, OnnxFile
from export.audit import read_metadata
from export.deepstream import DeepStreamConfig, make_deepstream_config
from sparsegpt_cli.jobs.plan_signature import read_signature
from sparsegpt_core.errors import InputError
from sparsegpt_core.files import check_model_metadata, sidecar_path, write_text

__all__ = ["write_deepstream_config"]


def write_deepstream_config(
    model: Path, out: Path, batch_size: int | None = None, labels: Path | None = None
) -> DeepStreamConfig:
    """Write the configuration with which DeepStream runs a model. Its paths are relative to the configuration's folder.

    Args:
        model: An .onnx file, or a plan with its sidecar; then the ONNX file that it was built from is read, too.
        out: The configuration to write.
        batch_size: Frames in one inference; None for the plan's maximum, the fixed batch, or 1.
        labels: A file with the class names in one line, separated by semicolons.

    Raises:
        InputError: A file cannot be read, the batch does not fit, or Gst-nvinfer cannot run the model.
    """
    is_plan = model.suffix != ".onnx"
    file = OnnxFile(_source(model) if is_plan else model)
    graph, metadata = file.graph, check_model_metadata(read_metadata(file.graph.model), file.path)
    if "mean" not in metadata or "std" not in metadata:
        raise InputError(
            f"{file.path} does not record the mean and std of its images", "Export it with `sparsegpt-trt export`."
        )
    largest: int | None
    if is_plan:
        signature = read_signature(model, "DeepStream")
        described, largest = signature.graph, signature.largest_batch
    else:
        described, largest = graph.model.graph, next(iter(graph.inputs.values()), (None,))[0]
    if batch_size and largest and (batch_size > largest or (batch_size < largest and not is_plan)):
        takes = "up to " if is_plan else ""
        raise InputError(f"{model} takes batches of {takes}{largest}, not {batch_size}", "Leave out `engine_batch`.")
    if labels:
        _check_labels(labels, metadata.get("num_classes"))
    config = make_deepstream_config(
        described,
        _relative(model, out),
        metadata["mean"],
        metadata["std"],
        precision=_precision(graph),
        batch_size=batch_size or largest or 1,
        labels=_relative(labels, out) if labels else None,
    )
    write_text(out, config.to_text())
    return config


def _source(plan: Path) -> Path:
    """Return the ONNX file that a plan was built from: at the recorded path, or next to the plan."""
    _, record = load_plan(plan)
    try:
        recorded, digest = Path(record["onnx"]["path"]), record["onnx"]["sha256"]
    except (KeyError, TypeError) as error:
        raise InputError(f"{sidecar_path(plan)} is not complete", "Build the plan again.") from error
    for path in (recorded, plan.with_name(recorded.name)):
        if path.is_file() and OnnxFile(path).sha256 == digest:
            return path
    raise InputError(
        f"the ONNX file that {plan} was built from is not at {recorded}, or it has changed",
        "Put it next to the plan: it records the mean and std of the images.",
    )


def _precision(graph: Graph) -> str:
    return "int8" if graph.quantized else "fp16" if graph.fp16 else "fp32"


def _check_labels(labels: Path, classes: int | None) -> None:
    try:
        first, *further = labels.read_text(encoding="utf-8").splitlines() or [""]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {labels}: {getattr(error, 'strerror', None) or 'it is not UTF-8'}") from error
    names = first.split(";")
    if further or not all(names) or (classes is not None and len(names) != classes):
        wanted = "the class names" if classes is None else f"{classes} class names"
        raise InputError(
            f"{labels} has {len(names)} names in its first of {1 + len(further)} lines",
            f"DeepStream reads {wanted} from one line, separated by semicolons.",
        )


def _relative(path: Path, config: Path) -> str:
    """Return a path relative to the configuration's folder, as DeepStream reads it."""
    return os.path.relpath(path.resolve(), config.parent.resolve())
