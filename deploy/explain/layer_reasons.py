"""Combines the audit, the build log, the inspector and the times into one row for each layer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Dict, List, Optional

from deploy.explain.evidence import Evidence
from deploy.explain.explanation import ExplainedLayer, Explanation
from deploy.explain.limits import ceiling, is_small
from deploy.measure import Ratio
from sparsegpt_core.reasons import Reason

if TYPE_CHECKING:
    from export.audit import AuditedLayer, AuditResult

__all__ = ["explain"]


def explain(
    audit: AuditResult,
    sparse: Evidence,
    dense: Optional[Evidence] = None,
    speedup: Optional[Ratio] = None,
    noise: float = 0.0,
    batch: Optional[int] = None,
) -> Explanation:
    """Explain for each layer and for the whole engine what sparsity gains, and why not more.

    Args:
        audit: The audit of the sparse ONNX file.
        sparse: The engine of arm C: sparse weights, sparse flag on.
        dense: The engine of arm B: the same weights, sparse flag off.
        speedup: The measured speed-up of the sparse engine over the dense model's (A to C).
        noise: The relative difference of equal engines; smaller speed-ups do not count.
        batch: Images in one timed inference.

    Example:
        >>> import onnx
        >>> from export.audit import audit_model
        >>> model = onnx.parser.parse_model('''
        ...     <ir_version: 8, opset_import: ["": 17]> g (float[N, 4] x) => (float[N, 1] y)
        ...     <float[4, 1] w = {0, 1, 0, 2}> { y = MatMul(x, w) }''')
        >>> explanation = explain(audit_model(model), Evidence(sparse_flag=False))
        >>> explanation.layers[0].reason.value, explanation.eligible_layers
        ('FLAG_OFF', 1)
    """
    dense = dense or Evidence(sparse_flag=False)
    layers = tuple(_explain_layer(layer, sparse, dense) for layer in audit.layers)
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


def _explain_layer(layer: AuditedLayer, sparse: Evidence, dense: Evidence) -> ExplainedLayer:
    kernels = sorted(
        sparse.engine_layers(layer.name), key=lambda kernel: kernel.sparse is None
    )  # kernels known to be sparse or dense come first
    claims = [kernel.has_sparse_weights for kernel in kernels if kernel.has_sparse_weights is not None]
    before, after = dense.time_ms(layer.name), sparse.time_ms(layer.name)
    chosen = sparse.uses_sparse_kernel(layer.name)
    if chosen is None and not layer.eligible:
        chosen = False
    gain = 1.0 if chosen is False else before / after if before is not None and after else None
    noise = dense.noise_of(layer.name)
    reason = _reason(layer, chosen, gain, sparse, noise or 0.0)
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
        noise=noise,
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
    """Return the share of time of the kernels that run eligible layers only; None if one was not timed."""
    kernels: Dict[str, List[bool]] = {}
    for layer in layers:
        if layer.eligible and dense.time_ms(layer.name) is None:
            return None
        for kernel in dense.engine_layers(layer.name):
            kernels.setdefault(kernel.name, []).append(layer.eligible)
    total = sum(dense.times.values())
    time = sum(dense.times.get(name, 0.0) for name, eligible in kernels.items() if all(eligible))
    return time / total if total else None
