"""The explanation of a sparse engine: one row for each layer, and a verdict."""

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
    """One layer of the graph and how the engine runs it. None stands for an unknown value."""

    name: str
    """The node's name."""
    op: str
    """Conv, ConvTranspose, Gemm or MatMul."""
    shape: Optional[Tuple[int, ...]]
    """The weight's shape."""
    groups: int
    """Groups of the convolution, else 1."""
    dtype: Optional[str]
    """The weight's data type."""
    is_sparse: bool
    """Whether the weight obeys the pattern."""
    eligible: bool
    """Whether TensorRT has sparse kernels for this sparse layer."""
    chosen: Optional[bool]
    """Whether a sparse kernel runs it."""
    engine_layer: Optional[str]
    """The engine layer that runs it, which may fuse several nodes."""
    tactic: Optional[str]
    """That engine layer's kernel."""
    has_sparse_weights: Optional[bool]
    """TensorRT's own claim, which is also true of some dense kernels."""
    time_b_ms: Optional[float]
    """Time of its engine layers with the sparse flag off, in milliseconds; fused nodes have the same time."""
    time_c_ms: Optional[float]
    """Time of its engine layers with the sparse flag on, in milliseconds."""
    gain: Optional[float]
    """``time_b_ms`` / ``time_c_ms``; 1 where no sparse kernel runs."""
    noise: Optional[float]
    """The relative difference between several measurements of ``time_b_ms``; smaller gains do not count."""
    reason: Optional[Reason]
    """Why the layer gains nothing; None where it gains or nothing is known to be wrong."""
    advice: str
    """The sentence for ``reason``; empty without one."""


@dataclass(frozen=True)
class Explanation:
    """All layers and their summary. None stands for an unknown value."""

    pattern: str
    """The audited pattern, such as ``2:4``."""
    layers: Tuple[ExplainedLayer, ...]
    """One row for each layer of the graph."""
    eligible_layers: int
    """Layers of the graph that can use sparse kernels."""
    chosen_layers: Optional[int]
    """Eligible layers that do use sparse kernels."""
    builder: SparsityLog
    """The builder's own counts, which are of fused layers."""
    obstacle: Optional[Reason]
    """The reason that rules out sparse kernels in the whole engine."""
    eligible_share: Optional[float]
    """Share of the dense kernels' time (arm B) that eligible layers take, 0 to 1."""
    ceiling: Optional[float]
    """The largest speed-up that sparse tensor cores allow with this share."""
    speedup: Optional[Ratio]
    """The measured speed-up of the sparse engine over the dense one."""
    noise: float
    """The relative difference of two measurements of arm A, or of its engines, which is larger."""
    batch: Optional[int]
    """Images in one timed inference."""

    @property
    def verdict(self) -> str:
        """The summary in one line."""
        return verdict(self)

    def to_json(self) -> Dict[str, Any]:
        """Return the fields as values for JSON, which ``read_profile`` can read."""
        return {**asdict(self), "verdict": self.verdict}


_MIN_CEILING = 1.05  # a lower ceiling explains the lack of a gain without further causes


def verdict(explanation: Explanation) -> str:
    """Say what was gained, or why nothing was.

    A speed-up counts only if the engine has a sparse kernel, the interval excludes 1, and the difference exceeds the
    noise. Of engines that were built once it is true of this build only.
    """
    speedup, noise = explanation.speedup, explanation.noise
    ruled_out = _ruled_out(explanation)
    if speedup is None:
        return f"no gain here, because {ruled_out}" if ruled_out else f"not measured; {_kernels(explanation)}"
    of_build = ", of this build" if speedup.rebuilds == 1 else ""
    ratio = f"{speedup.ratio:.2f}× ({speedup.low:.2f}–{speedup.high:.2f}{of_build})"
    at = "" if explanation.batch is None else f" at batch {explanation.batch}"
    if ruled_out:
        return f"no gain here, because {ruled_out} Measured without sparse kernels: {ratio}{at}."
    if speedup.low > 1 and speedup.ratio > 1 + noise:
        return f"sparse is {ratio} faster{at}; {_kernels(explanation)}"
    slower = speedup.high < 1 and speedup.ratio < 1 - noise
    cause = "sparse is slower" if slower else _small_share(explanation) or "the difference lies within the noise"
    return f"no gain here, because {cause}: {ratio}{at}; {_kernels(explanation)}"


def _ruled_out(explanation: Explanation) -> Optional[str]:
    """Return one or two sentences, starting in lower case, if no sparse kernel runs; else None."""
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
