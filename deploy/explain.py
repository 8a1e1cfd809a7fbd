"""Why an engine is or is not faster sparse: audit, build log, inspector and per-layer times in one table."""

from __future__ import annotations

__all__ = ["ExplainedLayer", "Explanation", "explain"]

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Tuple

from deploy.build_log import SparsityLog
from deploy.evidence import Evidence
from deploy.predict import ceiling, is_small
from deploy.verdict import verdict
from sparsegpt_core.reasons import Reason

if TYPE_CHECKING:
    from deploy.latency import Ratio
    from export.audit import AuditedLayer, AuditResult


@dataclass(frozen=True)
class ExplainedLayer:
    """One layer of the graph and what became of it.

    ``is_sparse`` says whether the weight obeys the pattern, ``chosen`` whether a sparse kernel runs it. Layers that
    share an engine layer bear its whole time: B is with the sparse flag off, C with it on, both in milliseconds.
    ``has_sparse_weights`` is TensorRT's claim, which proves nothing. ``gain`` is B over C, and 1 where no sparse
    kernel runs. None stands for what is not known, and a ``reason`` of None for a layer with nothing amiss.
    """

    name: str
    op: str
    shape: Optional[Tuple[int, ...]]
    groups: int
    dtype: Optional[str]
    is_sparse: bool
    eligible: bool
    chosen: Optional[bool]
    engine_layer: Optional[str]
    tactic: Optional[str]
    has_sparse_weights: Optional[bool]
    time_b_ms: Optional[float]
    time_c_ms: Optional[float]
    gain: Optional[float]
    reason: Optional[Reason]
    advice: str


@dataclass(frozen=True)
class Explanation:
    """Every layer, and what they come to.

    ``chosen_layers`` counts the eligible layers with sparse kernels; ``builder`` holds the builder's own counts,
    which are of fused layers. ``eligible_share`` is the part of B's time that eligible layers take, ``ceiling`` the
    tensor cores' limit with it. ``obstacle`` rules out sparse kernels altogether. None stands for what is not known.
    """

    pattern: str
    layers: Tuple[ExplainedLayer, ...]
    eligible_layers: int
    chosen_layers: Optional[int]
    builder: SparsityLog
    obstacle: Optional[Reason]
    eligible_share: Optional[float]
    ceiling: Optional[float]
    speedup: Optional[Ratio]
    noise: float
    batch: Optional[int]

    @property
    def verdict(self) -> str:
        """The whole in one line."""
        return verdict(self)

    def to_json(self) -> Dict[str, Any]:
        """Return the fields as JSON can hold them; ``layers_without_gain`` reads it, too."""
        return {**asdict(self), "verdict": self.verdict}


def explain(
    audit: AuditResult,
    sparse: Evidence,
    dense: Optional[Evidence] = None,
    speedup: Optional[Ratio] = None,
    noise: float = 0.0,
    batch: Optional[int] = None,
) -> Explanation:
    """Say for every layer, and for the whole, what sparsity gains and why not more.

    Args:
        audit: Of the sparse ONNX file.
        sparse: The engine of arm C: sparse weights, flag on.
        dense: That of arm B: the same weights, flag off.
        speedup: The sparse engine's over the dense model's (A to C), as measured.
        noise: How far from 1 a speed-up of nothing was measured; smaller differences are none.
        batch: Images per call of the measurement.
    """
    dense = dense or Evidence(sparse_flag=False)
    layers = tuple(_explain_layer(layer, sparse, dense, noise) for layer in audit.layers)
    chosen = [layer.chosen for layer in layers if layer.eligible]
    share = _eligible_share(audit.layers, dense)
    return Explanation(
        pattern=audit.pattern,
        layers=layers,
        eligible_layers=len(chosen),
        chosen_layers=sparse.log.chosen if None in chosen else sum(map(bool, chosen)),
        builder=sparse.log,
        obstacle=sparse.obstacle,
        eligible_share=share,
        ceiling=None if share is None else ceiling(share),
        speedup=speedup,
        noise=noise,
        batch=batch,
    )


def _explain_layer(layer: AuditedLayer, sparse: Evidence, dense: Evidence, noise: float) -> ExplainedLayer:
    kernels = sorted(sparse.running(layer.name), key=lambda kernel: kernel.sparse is None)  # those that tell first
    claims = [kernel.has_sparse_weights for kernel in kernels if kernel.has_sparse_weights is not None]
    before, after = dense.time(layer.name), sparse.time(layer.name)
    chosen = sparse.chose(layer.name)
    if chosen is None and not layer.eligible:
        chosen = False
    gain = 1.0 if chosen is False else before / after if before is not None and after else None
    reason = _reason(layer, chosen, gain, sparse, noise)
    return ExplainedLayer(
        name=layer.name,
        op=layer.op,
        shape=layer.shape,
        groups=layer.groups,
        dtype=layer.dtype,
        is_sparse=layer.is_sparse,
        eligible=layer.eligible,
        chosen=chosen,
        engine_layer=kernels[0].name if kernels else None,
        tactic=kernels[0].tactic if kernels else None,
        has_sparse_weights=any(claims) if claims else None,
        time_b_ms=before,
        time_c_ms=after,
        gain=gain,
        reason=reason,
        advice=reason.advice if reason else "",
    )


def _reason(
    layer: AuditedLayer, chosen: Optional[bool], gain: Optional[float], sparse: Evidence, noise: float
) -> Optional[Reason]:
    if not layer.eligible:
        return layer.reason
    if chosen:
        return Reason.CHOSEN_NO_GAIN if gain is not None and gain <= 1 + noise else None
    if sparse.obstacle is not None:
        return sparse.obstacle
    if chosen is None:
        return Reason.OPAQUE
    if is_small(layer):
        return Reason.SMALL_CHANNELS
    return Reason.OUT_OF_MEMORY_TACTIC if sparse.memory_skips else Reason.ELIGIBLE_NOT_CHOSEN


def _eligible_share(layers: Iterable[AuditedLayer], dense: Evidence) -> Optional[float]:
    """Return which part of the time kernels of eligible layers alone take; None where one was not timed."""
    kernels: Dict[str, List[bool]] = {}
    for layer in layers:
        if layer.eligible and dense.time(layer.name) is None:
            return None
        for kernel in dense.running(layer.name):
            kernels.setdefault(kernel.name, []).append(layer.eligible)
    total = sum(dense.times.values())
    time = sum(dense.times.get(name, 0.0) for name, eligible in kernels.items() if all(eligible))
    return time / total if total else None
