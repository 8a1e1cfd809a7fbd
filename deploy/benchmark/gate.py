"""Limits that a result must meet."""

from __future__ import annotations

from typing import Optional

from deploy.benchmark.result import BenchmarkResult

__all__ = ["failed_gate"]


def failed_gate(
    result: BenchmarkResult, max_drop: Optional[float] = None, min_speedup: Optional[float] = None
) -> Optional[str]:
    """Return why a result fails the limits, or None if it passes.

    Args:
        result: The benchmark's result.
        max_drop: The largest allowed loss of top-1 accuracy, in percentage points.
        min_speedup: The smallest allowed speed-up of the sparse engine over the dense one.

    Example:
        >>> failed_gate(result, max_drop=0.5, min_speedup=1.1)  # doctest: +SKIP
        'the speed-up is 1.04, 1.1 is required'
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
