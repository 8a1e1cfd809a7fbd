"""Estimates the speed-up of 2:4 from a dense ONNX model, without pruning it and without a GPU.

The roofline model estimates a layer's time: the longer of its computation at the tensor cores' rate and the transfer
of its bytes (Williams et al., 2009). Sparse kernels halve the computation and nearly halve the weights. They are
faster only in layers with enough channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Optional, Set, Tuple, Union

from deploy.explain import ceiling, is_small
from deploy.graph import OnnxFile, Shapes, Workload, read_workloads, resolve_shapes
from sparsegpt_core.reasons import Reason

if TYPE_CHECKING:
    from export.audit import AuditedLayer

__all__ = ["EstimatedPrediction", "PredictedLayer", "predict"]

# An A100 computes 312 TFLOP/s in FP16 and moves 1.56 TB/s, so at 200 FLOP per byte both take equally long; other GPUs
# have 150 to 400. INT8 doubles the rate and halves the bytes, so a dense layer's share of the time stays the same.
_BALANCE_FLOP_PER_BYTE = 200
# A sparse weight keeps two of four values and two bits of position for each: 36 bits of 64 in FP16, 20 of 32 in INT8.
_SAVED_SHARE_FP16, _SAVED_SHARE_INT8 = 7 / 16, 3 / 8
_STRUCTURAL = (Reason.TRANSPOSED, Reason.GROUPED, Reason.NOT_CONSTANT, Reason.CHANNELS_NOT_MULTIPLE)
_NOTE = "An estimate from layer shapes, not a measurement: only engines on a GPU show the real gain."


@dataclass(frozen=True)
class PredictedLayer:
    """One layer's estimate. None where shapes are unknown."""

    name: str
    """The node's name."""
    op: str
    """Conv, ConvTranspose, Gemm or MatMul."""
    shape: Optional[Tuple[int, ...]]
    """The weight's shape."""
    groups: int
    """Groups of the convolution, else 1."""
    flops: Optional[int]
    """Floating-point operations of one inference."""
    bytes: Optional[int]
    """Bytes that one inference moves in FP16."""
    share: Optional[float]
    """Share of the estimated time, 0 to 1."""
    eligible: bool
    """Whether a sparse kernel could run it after pruning."""
    gain: Optional[float]
    """The largest speed-up of its sparse kernel; 1 where none is expected."""
    reason: Optional[Reason]
    """Why no gain is expected; None where one is."""
    advice: str
    """The sentence for ``reason``; empty without one."""


@dataclass(frozen=True)
class EstimatedPrediction:
    """The estimate for a whole model. None where no layer's shape is known."""

    model: str
    """The file's path."""
    shapes: Mapping[str, Tuple[int, ...]]
    """The shape of each input that the estimate is for."""
    layers: Tuple[PredictedLayer, ...]
    """One estimate for each layer."""
    eligible_share: Optional[float]
    """Share of the estimated time that eligible layers take, 0 to 1."""
    ceiling: Optional[float]
    """The largest speed-up that sparse tensor cores allow with this share."""
    bound: Optional[float]
    """The largest speed-up with each layer's own ``gain``, at most ``ceiling``."""

    @property
    def verdict(self) -> str:
        """The estimate in a few sentences."""
        if self.bound is None or self.ceiling is None or self.eligible_share is None:
            return f"No layer's shape could be inferred. {_NOTE}"
        gaining = sum(layer.gain is not None and layer.gain > 1 for layer in self.layers)
        if not gaining:
            return f"No gain is expected: no layer is both eligible and large enough. {_NOTE}{self._left_out}"
        return (
            f"At most {self.bound:.2f}×: eligible layers take {100 * self.eligible_share:.0f} % of the time, which "
            f"would allow {self.ceiling:.2f}×, but only {gaining} of {len(self.layers)} layers are large enough. "
            f"Measured speed-ups of whole CNNs are 1.0 to 1.2×. {_NOTE}{self._left_out}"
        )

    @property
    def _left_out(self) -> str:
        count = sum(layer.share is None for layer in self.layers)
        return f" Left out, since their shapes are unknown: {count} layers." if count else ""

    def to_json(self) -> Dict[str, Any]:
        """Return the content of ``predict.json``."""
        return {"estimate": True, "note": _NOTE, **asdict(self), "verdict": self.verdict}


def predict(model: Union[Path, OnnxFile], shapes: Optional[Shapes] = None) -> EstimatedPrediction:
    """Estimate the speed-up of 2:4.

    Args:
        model: A dense ONNX model. A pruned model has the same estimate.
        shapes: Shapes as for a build; the estimate is for the opt shape. None for 8 images where the batch is dynamic.

    Raises:
        InputError: The file is missing or is not an ONNX model, or the shapes do not fit it.
        MissingDependencyError: onnx is not installed.

    Example:
        >>> import numpy as np
        >>> import onnx
        >>> weight = onnx.numpy_helper.from_array(np.ones((512, 512), np.float16), "w")
        >>> model = onnx.parser.parse_model('''
        ...     <ir_version: 8, opset_import: ["": 17]>
        ...     g (float16[N, 512] x) => (float16[N, 512] y) { y = MatMul(x, w) }''')
        >>> model.graph.initializer.extend([weight])
        >>> onnx.save(model, "dense.onnx")
        >>> prediction = predict(Path("dense.onnx"), shapes=(1, 1, 1))
        >>> round(prediction.bound, 2), prediction.layers[0].eligible
        (1.77, True)
    """
    file = OnnxFile.of(model)
    graph = file.graph
    best = {name: shape for name, (_, shape, _) in resolve_shapes(graph.inputs, shapes).items()}
    workloads = read_workloads(graph.model, best)
    audited = {layer.name: layer for layer in file.audit.layers}  # names may repeat
    times = {name: _seconds(workload) for name, workload in workloads.items()}
    total = sum(times.values())
    int8 = _int8_nodes(graph.model)
    layers = tuple(
        _predict_layer(layer, workloads.get(layer.name), total, layer.name in int8) for layer in audited.values()
    )
    known = [(layer, times[layer.name]) for layer in layers if layer.share is not None]
    if not known:
        return EstimatedPrediction(str(file.path), best, layers, None, None, None)
    share = sum(time for layer, time in known if layer.eligible) / total
    saved = sum(time * (1 - 1 / layer.gain) for layer, time in known if layer.gain)
    return EstimatedPrediction(str(file.path), best, layers, share, ceiling(share), total / (total - saved))


def _int8_nodes(model: Any) -> Set[str]:
    """Return the nodes whose two operands are dequantised. A node without a name goes by its first output."""
    nodes = model.graph.node
    dequantized = {name for node in nodes if node.op_type == "DequantizeLinear" for name in node.output}
    return {node.name or node.output[0] for node in nodes if node.output and dequantized.issuperset(node.input[:2])}


def _predict_layer(layer: AuditedLayer, workload: Optional[Workload], total: float, int8: bool) -> PredictedLayer:
    eligible = layer.reason not in _STRUCTURAL
    reason = layer.reason if not eligible else Reason.SMALL_CHANNELS if is_small(layer) else None
    saved = _SAVED_SHARE_INT8 if int8 else _SAVED_SHARE_FP16
    gain = _seconds(workload) / _sparse_seconds(workload, saved) if workload and reason is None else 1.0
    return PredictedLayer(
        name=layer.name,
        op=layer.op,
        shape=layer.shape,
        groups=layer.groups,
        flops=workload.flops if workload else None,
        bytes=workload.bytes if workload else None,
        share=_seconds(workload) / total if workload else None,
        eligible=eligible,
        gain=gain if workload or reason else None,
        reason=reason,
        advice=reason.advice if reason else "",
    )


def _seconds(workload: Workload) -> float:
    """Estimate a node's time in units of the time to move one byte."""
    return max(workload.flops / _BALANCE_FLOP_PER_BYTE, workload.bytes)


def _sparse_seconds(workload: Workload, saved_share: float) -> float:
    return max(workload.flops / 2 / _BALANCE_FLOP_PER_BYTE, workload.bytes - saved_share * workload.weight_bytes)
