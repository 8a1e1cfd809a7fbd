"""Why an engine is or is not faster sparse: audit, build log, inspector and per-layer times in one table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Dict, Optional, Tuple

from deploy.builder import SparsityLog
from deploy.measure import Ratio
from sparsegpt_core.reasons import Reason

__all__ = ["ExplainedLayer", "Explanation", "verdict"]


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


_MIN_CEILING = 1.05  # a ceiling below this explains by itself why nothing is gained


def verdict(explanation: Explanation) -> str:
    """Say what was gained, or why nothing was.

    Without a sparse kernel no speed-up counts as sparsity's, whatever was measured; with some, a difference within
    the noise or whose interval holds 1 is none.
    """
    speedup, noise = explanation.speedup, explanation.noise
    ruled_out = _ruled_out(explanation)
    if speedup is None:
        return f"no gain here, because {ruled_out}" if ruled_out else f"not measured; {_kernels(explanation)}"
    ratio = f"{speedup.ratio:.2f}× ({speedup.low:.2f}–{speedup.high:.2f})"
    at = "" if explanation.batch is None else f" at batch {explanation.batch}"
    if ruled_out:
        return f"no gain here, because {ruled_out} Measured without sparse kernels: {ratio}{at}."
    if speedup.low > 1 and speedup.ratio > 1 + noise:
        return f"sparse is {ratio} faster{at}; {_kernels(explanation)}"
    slower = speedup.high < 1 and speedup.ratio < 1 - noise
    cause = "sparse is slower" if slower else _small_share(explanation) or "the difference lies within the noise"
    return f"no gain here, because {cause}: {ratio}{at}; {_kernels(explanation)}"


def _ruled_out(explanation: Explanation) -> Optional[str]:
    """Return one or two sentences, the first without its capital, if no sparse kernel runs."""
    if explanation.obstacle is not None:
        return explanation.obstacle.advice[0].lower() + explanation.obstacle.advice[1:]
    if not explanation.eligible_layers:
        return f"no layer is eligible.{_commonest(explanation.layers)}"
    if explanation.chosen_layers == 0:
        eligible = [layer for layer in explanation.layers if layer.eligible]
        return f"none of {len(eligible)} eligible layers uses a sparse kernel.{_commonest(eligible)}"
    return None


def _commonest(layers: Iterable[ExplainedLayer]) -> str:
    reasons = Counter(layer.reason for layer in layers if layer.reason is not None)
    return "".join(f" {reason.value} ({count}): {reason.advice}" for reason, count in reasons.most_common(1))


def _small_share(explanation: Explanation) -> Optional[str]:
    share, limit = explanation.eligible_share, explanation.ceiling
    if share is None or limit is None or limit > _MIN_CEILING:
        return None
    return f"eligible layers take only {100 * share:.0f} % of the time, which allows {limit:.2f}× at most"


def _kernels(explanation: Explanation) -> str:
    eligible, chosen = explanation.eligible_layers, explanation.chosen_layers
    if chosen is None:
        return f"how many of {eligible} eligible layers use sparse kernels is unknown"
    return f"{chosen} of {eligible} eligible layers use sparse kernels"
