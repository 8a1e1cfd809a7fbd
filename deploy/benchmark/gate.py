"""Whether a result passes."""

from __future__ import annotations

from typing import Optional

from deploy.benchmark.result import BenchmarkResult

__all__ = ["failed_gate"]


def failed_gate(
    result: BenchmarkResult, max_drop: Optional[float] = None, min_speedup: Optional[float] = None
) -> Optional[str]:
    """Say why a result does not pass, or return None.

    Args:
        result: What was measured.
        max_drop: The most top-1 accuracy that may be lost, in percentage points.
        min_speedup: The least speed-up of the sparse engine over the dense one.
    """
    reasons = []
    difference, speedup = result.difference, result.speedup["A_to_C"]
    if max_drop is not None:
        if difference is None:
            reasons.append("without labels the loss of accuracy cannot be judged")
        elif not -difference.value <= max_drop:
            reasons.append(f"top-1 accuracy fell by {-difference.value:.2f} points, {max_drop:g} are allowed")
    if min_speedup is not None:
        if speedup is None:
            reasons.append(f"{result.runtime} has no sparse kernels, so a speed-up cannot be judged here")
        elif not speedup.ratio >= min_speedup:
            reasons.append(f"the speed-up is {speedup.ratio:.2f}, {min_speedup:g} is required")
    return "; ".join(reasons) or None
