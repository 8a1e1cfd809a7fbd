"""Write a PyTorch model as ONNX whose weights TensorRT can use sparsely."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any, cast

import onnx
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.onnx import ONNXProgram

from export.audit import write_metadata
from export.writing.naming import INPUT, OUTPUT, name_nodes, name_values
from export.writing.opset import to_opset_17
from export.writing.saving import save_model
from sparsegpt_core.errors import ModelError, first_line
from sparsegpt_core.execution import device_of
from sparsegpt_core.network import eval_mode

__all__ = ["INPUT", "OPSET", "OUTPUT", "export_model", "save_model"]

OPSET = 20
"""The version of ONNX's operators that is written unless another is asked for."""

_LOWEST, _TRACED_LOWEST = 17, 18  # of opsets: ours, and the tracer's
_BACKBONE = "Export its backbone alone: --model package.module:factory with a factory that returns model.backbone."


def export_model(
    model: nn.Module,
    inputs: tuple[int, int, int] | tuple[Tensor, ...],
    metadata: dict[str, Any] | None = None,
    *,
    dynamic_size: bool = False,
    fold_batch_norm: bool = True,
    opset: int = OPSET,
) -> onnx.ModelProto:
    """Trace a model to an FP32 ONNX graph with a dynamic batch.

    A single input is called ``input``, several bear the names of ``forward``'s arguments; a single output is
    called ``logits``, several bear their keys. Every node with a weight is named after its module, so that
    audits and TensorRT's logs speak of ``layer1.0.conv1``.

    Args:
        model: In float32; traced in eval mode, on the device where it is.
        inputs: Shape of one image (C, H, W), or an example of every input; all whose first axis is as long as
            the first one's share the dynamic batch.
        metadata: What to note in the file.
        dynamic_size: Leave height and width of images (N, C, H, W) open as well.
        fold_batch_norm: Fold batch norm into the convolution before it; a scale per output channel keeps zeros
            zero.
        opset: 17 (the last that TensorRT 8.6 reads) or later.

    Raises:
        ModelError: torch.onnx cannot trace the model, or the opset cannot express it.
    """
    if opset < _LOWEST:
        raise ModelError(f"opset {opset} is too old", f"Ask for {_LOWEST} or later.")
    examples = _examples(inputs, device_of(model))
    try:
        with _quiet(), eval_mode(model), torch.no_grad():
            if dynamic_size:  # the tracer lets pass what fits one size alone
                model(*(x.repeat(1, 1, 2, 2) if x.ndim == 4 else x for x in examples))
            _refuse_detector(model(*examples))
            program = torch.onnx.export(
                model,
                examples,
                dynamo=True,
                dynamic_shapes=_dynamic_shapes(examples, dynamic_size),
                opset_version=max(opset, _TRACED_LOWEST),
                optimize=False,
                verbose=False,
            )
            program = cast(ONNXProgram, program)  # None is what the tracer of old returned
            _optimize(program, fold_batch_norm)
            name_values(program)
    except ModelError:
        raise
    except Exception as error:  # whatever the tracer or the model's own code raises
        raise ModelError(
            f"torch.onnx cannot export the model: {first_line(error.__cause__ or error)}", _hint(model, dynamic_size)
        ) from error
    if opset < _TRACED_LOWEST:
        to_opset_17(program.model)
    proto = program.model_proto
    written = next(each.version for each in proto.opset_import if not each.domain)
    if written != opset:
        raise ModelError(f"torch.onnx wrote opset {written} in place of {opset}", f"Ask for {OPSET}.")
    name_nodes(proto.graph)
    proto.ir_version = onnx.helper.find_min_ir_version_for(list(proto.opset_import), ignore_unknown=True)
    proto.producer_name = "sparsegpt-trt"
    write_metadata(proto, metadata or {})
    return proto


def _examples(inputs: tuple[int, int, int] | tuple[Tensor, ...], device: torch.device) -> tuple[Tensor, ...]:
    """Return an example of every input, their batches two or more: one would be taken for a constant."""
    tensors = [each.to(device) for each in inputs if isinstance(each, Tensor)]
    if not tensors:
        return (torch.zeros(2, *(int(size) for size in inputs), device=device),)
    return tuple(torch.cat([x, x]) if tensors[0].shape[0] == 1 and _batched(x, tensors[0]) else x for x in tensors)


def _batched(x: Tensor, first: Tensor) -> bool:
    return x.shape[:1] == first.shape[:1]


def _dynamic_shapes(examples: tuple[Tensor, ...], dynamic_size: bool) -> tuple[dict[int, Any], ...]:
    """Sizes by name are free unless the model asks two of them to be equal."""
    shapes: list[dict[int, Any]] = []
    for index, x in enumerate(examples):
        shape: dict[int, Any] = {0: Dim("batch")} if _batched(x, examples[0]) else {}
        if dynamic_size and x.ndim == 4:
            prefix = f"input_{index}_" if index else ""
            shape |= {2: f"{prefix}height", 3: f"{prefix}width"}
        shapes.append(shape)
    return tuple(shapes)


def _refuse_detector(outputs: Any) -> None:
    """Raise ModelError where every image gets detections of its own, as many as there are: no graph of tensors."""
    if isinstance(outputs, (list, tuple)) and any(isinstance(each, dict) for each in outputs):
        raise ModelError("the model is a detector: it gives a list of detections for each image", _BACKBONE)


def _optimize(program: ONNXProgram, fold_batch_norm: bool) -> None:
    """Fold constants and, unless told not to, batch norms."""
    inputs = program.model.graph.inputs
    count = len(inputs)
    if not fold_batch_norm:  # the optimiser folds what is constant, which an input is not
        means = [node.inputs[3] for node in program.model.graph if node.op_type == "BatchNormalization"]
        inputs.extend(dict.fromkeys(mean for mean in means if mean is not None))
    program.optimize()
    del inputs[count:]


def _hint(model: nn.Module, dynamic_size: bool) -> str:
    if dynamic_size:
        return "Export it with a fixed height and width."
    if hasattr(model, "backbone"):
        return _BACKBONE
    return "Check that torch.export.export(model, ...) works with a dynamic batch."


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
