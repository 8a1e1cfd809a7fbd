"""Estimates the speed-up of 2:4 on a GPU from a dense ONNX model, without pruning it and without the GPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Optional, Set, Tuple, Union

from deploy.explain import ceiling
from deploy.graph import OnnxFile, Shapes, Workload, read_workloads, resolve_shapes
from deploy.roofline import GPUSpec, dense_time, find_spec, sparse_time
from sparsegpt_core.errors import InputError
from sparsegpt_core.reasons import Reason

if TYPE_CHECKING:
    from export.audit import AuditedLayer

__all__ = ["MIN_GAIN", "EstimatedPrediction", "PredictedLayer", "predict"]

MIN_GAIN = 1.02
"""The smallest gain for which pruning a layer pays: measured times are noisy, and estimates coarse."""

_STRUCTURAL = (Reason.TRANSPOSED, Reason.GROUPED, Reason.NOT_CONSTANT, Reason.CHANNELS_NOT_MULTIPLE)
_PRECISIONS = ("fp16", "int8")
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
    seconds: Optional[float]
    """Estimated time of its dense kernel in one inference."""
    sparse_seconds: Optional[float]
    """Estimated time of its sparse kernel, if there is one."""
    bound: Optional[str]
    """What takes most of the dense kernel's time: ``compute``, ``memory`` or ``launch``."""
    eligible: bool
    """Whether a sparse kernel could run it after pruning."""
    gain: Optional[float]
    """``seconds`` / ``sparse_seconds``; 1 where the sparse kernel is not clearly faster."""
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
    gpu: str
    """The GPU that the estimate is for, a key of ``GPUS``."""
    precision: str
    """``fp16`` or ``int8``."""
    layers: Tuple[PredictedLayer, ...]
    """One estimate for each layer."""
    seconds: Optional[float]
    """Estimated time of one dense inference: layers and operators that move data."""
    eligible_share: Optional[float]
    """Share of the estimated time that eligible layers take, 0 to 1."""
    ceiling: Optional[float]
    """The largest speed-up that sparse tensor cores allow with this share."""
    bound: Optional[float]
    """The estimated speed-up with every layer pruned whose sparse kernel is faster."""

    @property
    def verdict(self) -> str:
        """The estimate in a few sentences."""
        if self.bound is None or self.ceiling is None or self.eligible_share is None:
            return f"No layer's shape could be inferred. {_NOTE}"
        on = f"on {self.gpu} in {self.precision.upper()}"
        gaining = sum(layer.gain is not None and layer.gain > 1 for layer in self.layers)
        if not gaining:
            return f"No gain is expected {on}: no layer is faster with a sparse kernel. {_NOTE}{self._left_out}"
        return (
            f"About {self.bound:.2f}× {on}: {gaining} of {len(self.layers)} layers are faster with a sparse kernel. "
            f"Eligible layers take {100 * self.eligible_share:.0f} % of the time, so {self.ceiling:.2f}× is the limit. "
            f"{_NOTE}{self._left_out}"
        )

    @property
    def _left_out(self) -> str:
        count = sum(layer.share is None for layer in self.layers)
        return f" Left out, since their shapes are unknown: {count} layers." if count else ""

    def to_json(self) -> Dict[str, Any]:
        """Return the content of ``predict.json``."""
        return {"estimate": True, "note": _NOTE, **asdict(self), "verdict": self.verdict}


def predict(
    model: Union[Path, OnnxFile],
    shapes: Optional[Shapes] = None,
    gpu: Optional[str] = None,
    precision: Optional[str] = None,
) -> EstimatedPrediction:
    """Estimate the speed-up of 2:4.

    Args:
        model: A dense ONNX model. A pruned model has the same estimate.
        shapes: Shapes as for a build; the estimate is for the opt shape. None for 8 images where the batch is dynamic.
        gpu: A key of :data:`~deploy.roofline.GPUS`. None for this machine's GPU, or ``a100`` where that is not known.
        precision: ``fp16`` or ``int8`` for all layers. None for the file's: INT8 where both operands are dequantised,
            else FP16.

    Raises:
        InputError: The file is missing or is not an ONNX model, the shapes do not fit it, or the GPU or the precision
            is unknown.
        MissingDependencyError: onnx is not installed.

    Example:
        >>> import numpy as np
        >>> import onnx
        >>> weight = onnx.numpy_helper.from_array(np.ones((4096, 4096), np.float16), "w")
        >>> model = onnx.parser.parse_model('''
        ...     <ir_version: 8, opset_import: ["": 17]>
        ...     g (float16[N, 4096] x) => (float16[N, 4096] y) { y = MatMul(x, w) }''')
        >>> model.graph.initializer.extend([weight])
        >>> onnx.save(model, "dense.onnx")
        >>> prediction = predict(Path("dense.onnx"), shapes=(1, 4096, 4096), gpu="a100")
        >>> prediction.layers[0].bound, prediction.layers[0].gain > 1.2
        ('compute', True)
    """
    if precision is not None and precision not in _PRECISIONS:
        raise InputError(f"`precision` is '{precision}'", f"Use one of {', '.join(_PRECISIONS)}.")
    spec, file = find_spec(gpu), OnnxFile.of(model)
    graph = file.graph
    best = {name: shape for name, (_, shape, _) in resolve_shapes(graph.inputs, shapes).items()}
    workloads = read_workloads(graph.model, best)
    int8 = _int8_nodes(graph.model) if precision is None else set(workloads) if precision == "int8" else set()
    precision = precision or ("int8" if graph.quantized else "fp16")
    audited = {layer.name: layer for layer in file.audit.layers}  # names may repeat
    total = sum(dense_time(work, spec, name in int8).seconds for name, work in workloads.items())
    layers = tuple(
        _predict_layer(layer, workloads.get(layer.name), total, spec, layer.name in int8) for layer in audited.values()
    )
    known = [layer for layer in layers if layer.share is not None]
    if not known:
        return EstimatedPrediction(str(file.path), best, spec.name, precision, layers, None, None, None, None)
    share = sum(layer.share or 0.0 for layer in known if layer.eligible)
    bound = total / (total - sum((layer.seconds or 0.0) - _best_seconds(layer) for layer in known))
    return EstimatedPrediction(str(file.path), best, spec.name, precision, layers, total, share, ceiling(share), bound)


def _int8_nodes(model: Any) -> Set[str]:
    """Return the nodes whose two operands are dequantised. A node without a name goes by its first output."""
    nodes = model.graph.node
    dequantized = {name for node in nodes if node.op_type == "DequantizeLinear" for name in node.output}
    return {node.name or node.output[0] for node in nodes if node.output and dequantized.issuperset(node.input[:2])}


def _predict_layer(
    layer: AuditedLayer, work: Optional[Workload], total: float, gpu: GPUSpec, int8: bool
) -> PredictedLayer:
    eligible = layer.reason not in _STRUCTURAL
    dense = dense_time(work, gpu, int8) if work else None
    sparse = sparse_time(work, gpu, int8) if work and eligible else None
    gain = dense.seconds / sparse.seconds if dense and sparse else None if eligible else 1.0
    reason = None if eligible else layer.reason
    if gain is not None and gain < MIN_GAIN:
        gain, reason = 1.0, reason or Reason.SMALL_CHANNELS
    return PredictedLayer(
        name=layer.name,
        op=layer.op,
        shape=layer.shape,
        groups=layer.groups,
        flops=work.flops if work else None,
        bytes=work.bytes if work else None,
        share=dense.seconds / total if dense else None,
        seconds=dense.seconds if dense else None,
        sparse_seconds=sparse.seconds if sparse else None,
        bound=dense.bound if dense else None,
        eligible=eligible,
        gain=gain,
        reason=reason,
        advice=reason.advice if reason else "",
    )


def _best_seconds(layer: PredictedLayer) -> float:
    """Return the estimated time of the faster kernel, which the builder chooses."""
    seconds = layer.seconds or 0.0
    return seconds / layer.gain if layer.gain else seconds
