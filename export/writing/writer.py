"""Traces a PyTorch network to an ONNX graph that TensorRT can run with sparse kernels."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from types import NoneType
from typing import Any, cast

import onnx
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.onnx import ONNXProgram
from torch.utils._pytree import tree_leaves

from export.audit import write_metadata
from export.writing.naming import mark_layers, name_nodes, name_values, value_names
from export.writing.opset import to_opset_17
from export.writing.saving import save_model
from sparsegpt_core.errors import ModelError, first_line
from sparsegpt_core.execution import device_of, full_precision
from sparsegpt_core.interrupts import no_collection
from sparsegpt_core.network import eval_mode

__all__ = ["OPSET", "TracedNetwork", "export_model", "save_model"]

OPSET = 20
"""The default version of ONNX's operators."""

_MIN_OPSET = 17
_MIN_TRACED_OPSET = 18  # torch.onnx writes no older one
_MAX_DISTANCE = 1e-3  # of two calls; a GPU's sums may differ in their last digits
_DETECTOR = "Give `model` a factory that returns its raw scores and boxes, or its backbone: see docs/detectors.md."


def export_model(
    network: nn.Module,
    inputs: tuple[int, int, int] | tuple[Tensor, ...],
    metadata: dict[str, Any] | None = None,
    *,
    dynamic_size: bool = False,
    fold_batch_norm: bool = True,
    opset: int = OPSET,
) -> onnx.ModelProto:
    """Trace a network to an FP32 ONNX graph with a dynamic batch.

    A single input is named ``input``; several inputs have the names of ``forward``'s arguments. A single tensor is
    named ``logits`` if it is (N, classes), else ``output``; other outputs have the names of their keys. Every node with
    a weight has the name of its module, such as ``layer1.0.conv1``, or of a parameter that no module calls, such as
    ``attention.in_proj_weight``. Audits and TensorRT's logs show it.

    Args:
        network: The network, in float32. It is traced in eval mode, on its own device.
        inputs: The shape of one image (C, H, W), or an example of every input. The inputs whose first axis is as long
            as the first input's share the dynamic batch.
        metadata: What the model records about itself, JSON-able.
        dynamic_size: Whether height and width of images (N, C, H, W) are dynamic too.
        fold_batch_norm: Whether batch norms are folded into the convolutions before them. A factor for each output
            channel keeps zeros zero.
        opset: The version of ONNX's operators: 17 (the last one that TensorRT 8.6 reads) or later.

    Raises:
        ModelError: torch.onnx cannot trace the network, or the opset cannot express it.

    Example:
        >>> model = export_model(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU()).eval(), (1, 8, 8))
        >>> [(node.name, node.op_type) for node in model.graph.node]
        [('0', 'Conv'), ('Relu_1', 'Relu')]
    """
    traced = TracedNetwork(network, inputs, dynamic_size=dynamic_size, fold_batch_norm=fold_batch_norm, opset=opset)
    return traced.to_onnx(network.state_dict(), metadata)


class TracedNetwork:
    """The graph of a network without its weights: it is traced once, and written with any weights.

    Args:
        network: As for :func:`export_model`.
        inputs: As for :func:`export_model`.
        dynamic_size: As for :func:`export_model`.
        fold_batch_norm: As for :func:`export_model`.
        opset: As for :func:`export_model`.

    Raises:
        ModelError: torch.onnx cannot trace the network.

    Example:
        >>> layer = nn.Conv2d(1, 2, 1, bias=False).eval()
        >>> traced = TracedNetwork(layer, (1, 4, 4))
        >>> _ = layer.weight.data.fill_(3)
        >>> onnx.numpy_helper.to_array(traced.to_onnx(layer.state_dict()).graph.initializer[0]).ravel().tolist()
        [3.0, 3.0]
    """

    def __init__(
        self,
        network: nn.Module,
        inputs: tuple[int, int, int] | tuple[Tensor, ...],
        *,
        dynamic_size: bool = False,
        fold_batch_norm: bool = True,
        opset: int = OPSET,
    ) -> None:
        if opset < _MIN_OPSET:
            raise ModelError(f"opset {opset} is too old", f"Use `opset={_MIN_OPSET}` or later.")
        self._fold_batch_norm, self._opset = fold_batch_norm, opset
        self._hint = _hint(network, dynamic_size)
        examples = _examples(inputs, device_of(network))
        with self._tracing(), eval_mode(network), full_precision(tf32=False):
            if dynamic_size:  # the tracer would accept a network that works at one size only
                network(*(x.repeat(1, 1, 2, 2) if x.ndim == 4 else x for x in examples))
            _check_outputs(network(*examples), network(*examples))
            dynamic_shapes = _dynamic_shapes(examples, dynamic_size)
            program = torch.onnx.export(
                network,
                examples,
                dynamo=True,
                dynamic_shapes=dynamic_shapes,
                opset_version=max(opset, _MIN_TRACED_OPSET),
                optimize=False,
                verbose=False,
            )
            program = cast(ONNXProgram, program)  # torch.onnx's old tracer returned None
            _check_batch(program, dynamic_shapes)
            self._layers = mark_layers(program, network)
            self._names = value_names(program)
        self._model = program.model
        for name in network.state_dict().keys() & self._model.graph.initializers.keys():
            self._model.graph.initializers[name].const_value = None

    def to_onnx(self, state: Mapping[str, Tensor], metadata: dict[str, Any] | None = None) -> onnx.ModelProto:
        """Return the graph with weights, the same as :func:`export_model` returns for the network that has them.

        Args:
            state: The network's state dict.
            metadata: What the model records about itself, JSON-able.

        Raises:
            ModelError: torch.onnx cannot optimise the graph, or the opset cannot express it.
        """
        program = ONNXProgram(self._model.clone(), None)
        # A clone counts its tensors from 0 again. The optimiser's new tensors shall have the names of a direct export.
        program.model.graph._name_authority = copy.deepcopy(self._model.graph._name_authority)
        with self._tracing():
            program.apply_weights(dict(state))
            _optimize(program, self._fold_batch_norm)
            name_values(program.model, self._names)
        if self._opset < _MIN_TRACED_OPSET:
            to_opset_17(program.model)
        model = program.model_proto
        written = next(each.version for each in model.opset_import if not each.domain)
        if written != self._opset:
            raise ModelError(f"torch.onnx wrote opset {written} instead of {self._opset}", f"Use `opset={OPSET}`.")
        name_nodes(model.graph, self._layers)
        model.ir_version = onnx.helper.find_min_ir_version_for(list(model.opset_import), ignore_unknown=True)
        model.producer_name = "sparsegpt-trt"
        write_metadata(model, metadata or {})
        return model

    @contextlib.contextmanager
    def _tracing(self) -> Iterator[None]:
        """Silence torch.onnx and turn its errors into ModelError."""
        try:
            with _quiet(), torch.no_grad(), no_collection():
                yield
        except ModelError:
            raise
        except Exception as error:  # the tracer and the network's own code raise any class
            raise ModelError(
                f"torch.onnx cannot export the model: {first_line(error.__cause__ or error)}", self._hint
            ) from error


def _examples(inputs: tuple[int, int, int] | tuple[Tensor, ...], device: torch.device) -> tuple[Tensor, ...]:
    """Return an example of every input with a batch of two or more: torch.export treats a size of 1 as a constant."""
    tensors = [each.to(device) for each in inputs if isinstance(each, Tensor)]
    if not tensors:
        return (torch.zeros(2, *(int(size) for size in inputs), device=device),)
    return tuple(torch.cat([x, x]) if tensors[0].shape[0] == 1 and _batched(x, tensors[0]) else x for x in tensors)


def _batched(x: Tensor, first: Tensor) -> bool:
    return x.shape[:1] == first.shape[:1]


def _dynamic_shapes(examples: tuple[Tensor, ...], dynamic_size: bool) -> tuple[dict[int, Any], ...]:
    """Return the dynamic axes of each input. Axes with a plain name may differ unless the network needs them equal."""
    shapes: list[dict[int, Any]] = []
    for index, x in enumerate(examples):
        shape: dict[int, Any] = {0: Dim("batch")} if _batched(x, examples[0]) else {}
        if dynamic_size and x.ndim == 4:
            prefix = f"input_{index}_" if index else ""
            shape |= {2: f"{prefix}height", 3: f"{prefix}width"}
        shapes.append(shape)
    return tuple(shapes)


def _check_outputs(outputs: Any, again: Any) -> None:
    """Raise ModelError for outputs that no graph can express: detections, other values than tensors, random ones.

    Args:
        outputs: The outputs.
        again: The outputs of a second call with the same inputs.
    """
    if isinstance(outputs, (list, tuple)) and outputs and all(isinstance(each, dict) for each in outputs):
        raise ModelError("the model is a detector: it returns a list of detections for each image", _DETECTOR)
    leaves = tree_leaves(outputs)
    other = {type(each).__name__: None for each in leaves if not isinstance(each, (Tensor, NoneType))}
    if other or not any(isinstance(each, Tensor) for each in leaves):
        raise ModelError(
            f"the model returns {', '.join(other) or 'None'}, not only tensors",
            "Return a tensor, or a tuple, list or dict of tensors.",
        )
    pairs = zip(leaves, tree_leaves(again), strict=True)
    if any(isinstance(one, Tensor) and _distance(one, other) > _MAX_DISTANCE for one, other in pairs):
        raise ModelError(
            "the model's outputs change from call to call with the same inputs, in eval mode too",
            "Make it deterministic: for example functional.dropout(x, p, self.training), not training=True.",
        )


def _distance(one: Tensor, other: Tensor) -> float:
    """Return the relative distance of two outputs; NaN, which other checks name, where one is not finite."""
    one, other = one.double(), other.double()
    return float((one - other).norm() / one.norm().clamp_min(torch.finfo(torch.float32).tiny))


def _check_batch(program: ONNXProgram, dynamic_shapes: tuple[dict[int, Any], ...]) -> None:
    """Raise ModelError if the tracer has replaced the dynamic batch by the examples' size, which it does silently."""
    for value, dynamic in zip(program.model.graph.inputs, dynamic_shapes):
        if 0 in dynamic and value.shape is not None and isinstance(value.shape[0], int):
            raise ModelError(
                f"the model works only with the batch size of its first call: {value.name} has shape {value.shape}",
                "Compute tensors of the batch's shape in every call. An Ultralytics head does so with dynamic = True: "
                "see docs/detectors.md.",
            )


def _optimize(program: ONNXProgram, fold_batch_norm: bool) -> None:
    """Fold constants and, where wanted, batch norms."""
    inputs = program.model.graph.inputs
    count = len(inputs)
    if not fold_batch_norm:  # the optimiser folds only constants, so every mean is an input until it has run
        means = [node.inputs[3] for node in program.model.graph if node.op_type == "BatchNormalization"]
        inputs.extend(dict.fromkeys(mean for mean in means if mean is not None))
    program.optimize()
    del inputs[count:]


def _hint(network: nn.Module, dynamic_size: bool) -> str:
    if dynamic_size:
        return "Leave `dynamic_size` out: this network needs a fixed height and width."
    if hasattr(network, "backbone"):
        return _DETECTOR
    return "Check that torch.export.export(model, ...) works with a dynamic batch."


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the tracer's prints, log lines and deprecation warnings."""
    disabled = logging.root.manager.disable
    sink = io.StringIO()
    with contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(disabled)
