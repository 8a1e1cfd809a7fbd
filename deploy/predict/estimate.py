"""What 2:4 could gain, from a dense ONNX model alone: an estimate, before anyone prunes and without a GPU.

A layer's time is estimated by the roofline: computing at the tensor cores' rate or moving its bytes, whichever
takes longer (Williams et al., 2009). Sparse kernels halve the computing and nearly halve the weights, and only pay
in layers with enough channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Optional, Tuple

from deploy.explain import ceiling, is_small
from deploy.graph import OnnxFile, Shapes, Workload, read_workloads, resolve_shapes
from sparsegpt_core.reasons import Reason

if TYPE_CHECKING:
    from export.audit import AuditedLayer

__all__ = ["EstimatedPrediction", "PredictedLayer", "predict"]

# FLOP per byte at which an A100's FP16 tensor cores (312 TFLOP/s) and memory (1.56 TB/s) take equally long; 150 to
# 400 on other GPUs. INT8 doubles the one and halves the other, which leaves every share of the time as it is.
_BALANCE_FLOP_PER_BYTE = 200
_SAVED_WEIGHT_SHARE = 7 / 16  # of four FP16 values two stay, with two bits of position each: 36 bits of 64
_STRUCTURAL = (Reason.TRANSPOSED, Reason.GROUPED, Reason.NOT_CONSTANT, Reason.CHANNELS_NOT_MULTIPLE)
_NOTE = "An estimate from layer shapes, not a measurement: only engines on a GPU show what is gained."


@dataclass(frozen=True)
class PredictedLayer:
    """One layer's estimate.

    ``eligible`` says whether it could run sparsely once pruned; ``share`` is its part of the estimated time and
    ``gain`` how many times as fast its sparse kernel could be at best, 1 where no gain is expected. None where shapes
    are unknown.
    """

    name: str
    op: str
    shape: Optional[Tuple[int, ...]]
    groups: int
    flops: Optional[int]
    bytes: Optional[int]
    share: Optional[float]
    eligible: bool
    gain: Optional[float]
    reason: Optional[Reason]
    advice: str


@dataclass(frozen=True)
class EstimatedPrediction:
    """The estimate for a whole model at ``shapes``.

    ``eligible_share`` is the part of the estimated time that eligible layers take, ``ceiling`` the tensor cores'
    limit with it, and ``bound`` the lower limit with each layer's own ``gain``; None where no layer's shape is known.
    """

    model: str
    shapes: Mapping[str, Tuple[int, ...]]
    layers: Tuple[PredictedLayer, ...]
    eligible_share: Optional[float]
    ceiling: Optional[float]
    bound: Optional[float]

    @property
    def verdict(self) -> str:
        """One line for the screen, which calls itself an estimate."""
        if self.bound is None or self.ceiling is None or self.eligible_share is None:
            return f"No layer's shape could be inferred. {_NOTE}"
        gaining = sum(layer.gain is not None and layer.gain > 1 for layer in self.layers)
        if not gaining:
            return f"No gain is expected: no layer is both eligible and large enough. {_NOTE}{self._left_out}"
        return (
            f"At most {self.bound:.2f}×: eligible layers take {100 * self.eligible_share:.0f} % of the time, which "
            f"would allow {self.ceiling:.2f}×, but only {gaining} of {len(self.layers)} layers are large enough. "
            f"Whole CNNs were measured at 1.0 to 1.2×. {_NOTE}{self._left_out}"
        )

    @property
    def _left_out(self) -> str:
        count = sum(layer.share is None for layer in self.layers)
        return f" Left out, since their shapes are unknown: {count} layers." if count else ""

    def to_json(self) -> Dict[str, Any]:
        """Return what ``predict.json`` holds."""
        return {"estimate": True, "note": _NOTE, **asdict(self), "verdict": self.verdict}


def predict(path: Path, shapes: Optional[Shapes] = None) -> EstimatedPrediction:
    """Estimate what 2:4 could gain.

    Args:
        path: A dense ONNX model; a pruned one gives the same.
        shapes: As for ``build``: the estimate is for the opt shape. None: batches of 8 where the batch is dynamic.

    Raises:
        InputError: The file is missing or no ONNX model, or the shapes do not fit it.
        MissingDependencyError: onnx is not installed.
    """
    file = OnnxFile(path)
    graph = file.graph
    best = {name: shape for name, (_, shape, _) in resolve_shapes(graph.inputs, shapes).items()}
    workloads = read_workloads(graph.model, best)
    audited = {layer.name: layer for layer in file.audit.layers}  # names need not be unique
    times = {name: _seconds(workload) for name, workload in workloads.items()}
    total = sum(times.values())
    layers = tuple(_predict_layer(layer, workloads.get(layer.name), total) for layer in audited.values())
    known = [(layer, times[layer.name]) for layer in layers if layer.share is not None]
    if not known:
        return EstimatedPrediction(str(path), best, layers, None, None, None)
    share = sum(time for layer, time in known if layer.eligible) / total
    saved = sum(time * (1 - 1 / layer.gain) for layer, time in known if layer.gain)
    return EstimatedPrediction(str(path), best, layers, share, ceiling(share), total / (total - saved))


def _predict_layer(layer: AuditedLayer, workload: Optional[Workload], total: float) -> PredictedLayer:
    eligible = layer.reason not in _STRUCTURAL
    reason = layer.reason if not eligible else Reason.SMALL_CHANNELS if is_small(layer) else None
    gain = _seconds(workload) / _seconds(workload, sparse=True) if workload and reason is None else 1.0
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


def _seconds(workload: Workload, sparse: bool = False) -> float:
    """Estimate a node's time, in units of what one byte takes to move."""
    if sparse:
        return max(
            workload.flops / 2 / _BALANCE_FLOP_PER_BYTE, workload.bytes - _SAVED_WEIGHT_SHARE * workload.weight_bytes
        )
    return max(workload.flops / _BALANCE_FLOP_PER_BYTE, workload.bytes)
