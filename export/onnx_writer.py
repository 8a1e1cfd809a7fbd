"""Write a PyTorch model as ONNX whose weights TensorRT can use sparsely."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from ast import literal_eval
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import torch
from google.protobuf.message import EncodeError
from torch import nn

from export.metadata import write_metadata
from sparsegpt_core.artifacts import atomic_path
from sparsegpt_core.errors import ModelError, first_line
from sparsegpt_core.layout import device_of
from sparsegpt_core.modules import eval_mode

__all__ = ["INPUT", "OUTPUT", "export_model", "save_model"]

INPUT, OUTPUT = "input", "logits"
_SCOPES = "pkg.torch.onnx.name_scopes"


def export_model(
    model: nn.Module, image: tuple[int, int, int], metadata: dict[str, Any] | None = None
) -> onnx.ModelProto:
    """Trace a model to an FP32 ONNX graph with input ``input``, output ``logits`` and a dynamic batch.

    Batch norm is folded: a scale per output channel keeps zeros zero. Every node with a weight is named after
    its module, so that audits and TensorRT's logs speak of ``layer1.0.conv1``.

    Args:
        model: In float32; traced in eval mode, on the device where it is.
        image: Shape of one image (C, H, W).
        metadata: What to note in the file.

    Raises:
        ModelError: torch.onnx cannot trace the model.
    """
    sample = torch.zeros(2, *image, device=device_of(model))
    try:
        with _quiet(), eval_mode(model), torch.no_grad():
            program = torch.onnx.export(
                model,
                (sample,),
                dynamo=True,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                verbose=False,
            )
    except Exception as error:  # whatever the tracer or the model's own code raises
        raise ModelError(
            f"torch.onnx cannot export the model: {first_line(error.__cause__ or error)}",
            "Check that torch.export.export(model, ...) works with a dynamic batch.",
        ) from error
    if program is None:
        raise ModelError("torch.onnx returned no model")
    proto = program.model_proto
    if len(proto.graph.output) != 1:
        raise ModelError(f"the model has {len(proto.graph.output)} outputs; one (N, classes) is expected")
    _name_nodes(proto.graph)
    proto.producer_name = "sparsegpt-trt"
    write_metadata(proto, metadata or {})
    return proto


def save_model(model: onnx.ModelProto, path: Path) -> None:
    """Write ``model`` to one file, atomically.

    Raises:
        InputError: The file cannot be written.
        ModelError: The model does not fit into one file.
    """
    with atomic_path(path) as temporary:
        try:
            onnx.save(model, str(temporary))
        except (EncodeError, ValueError) as error:  # by version of protobuf
            raise ModelError(f"the model does not fit into one ONNX file of 2 GiB: {first_line(error)}") from error


def _name_nodes(graph: onnx.GraphProto) -> None:
    """Name nodes after their modules and drop the tracer's notes, which hold paths of this machine."""
    used: Counter[str] = Counter()
    for index, node in enumerate(graph.node):
        scopes = next((entry.value for entry in node.metadata_props if entry.key == _SCOPES), "[]")
        del node.metadata_props[:]
        node.doc_string = ""
        node.name = f"{node.op_type}_{index}"
        if node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
            # A convolution with its batch norm folded has the batch norm's scope, but its own weight's name.
            weight, _, suffix = node.input[1].rpartition(".")
            module = weight if suffix == "weight" else next((s for s in reversed(literal_eval(scopes)[:-1]) if s), "")
            if module:
                used[module] += 1
                node.name = module if used[module] == 1 else f"{module}#{used[module]}"
    del graph.metadata_props[:]
    for value in (*graph.value_info, *graph.input, *graph.output):
        del value.metadata_props[:]
    for tensor in graph.initializer:
        del tensor.metadata_props[:]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's chatter (prints, log lines, deprecations inside torch) off the user's screen."""
    disabled = logging.root.manager.disable
    sink = io.StringIO()
    with contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(disabled)
