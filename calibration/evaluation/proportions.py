"""Exact limits of a share that was counted on a sample."""

from __future__ import annotations

import math

__all__ = ["images_needed", "lower_limit", "upper_limit"]

_CONFIDENCE = 0.95


def upper_limit(found: float, count: int) -> float:
    """Return the upper 95 % limit of a share, 0 to 1: the one-sided limit of Clopper and Pearson (1934).

    Args:
        found: Samples that were counted. A fraction is a mean over parts of samples, such as pixels.
        count: All samples.

    Example:
        >>> round(upper_limit(0, 512), 4), round(upper_limit(3, 1600), 4)
        (0.0058, 0.0048)
    """
    from scipy.special import betaincinv  # slow to import

    return 1.0 if found >= count else float(betaincinv(found + 1, count - found, _CONFIDENCE))


def lower_limit(found: float, count: int) -> float:
    """Return the lower 95 % limit of a share, 0 to 1: the one-sided limit of Clopper and Pearson (1934).

    Args:
        found: Samples that were counted. A fraction is a mean over parts of samples, such as pixels.
        count: All samples.

    Example:
        >>> round(lower_limit(30, 100), 3)
        0.225
    """
    return 1 - upper_limit(count - found, count)


def images_needed(share: float) -> int | None:
    """Return how many samples, none of them counted, have ``share`` as their upper limit; None if no number does.

    Example:
        >>> images_needed(0.005)
        598
        >>> images_needed(0.0) is None
        True
    """
    if not share > 0:
        return None
    return 1 if share >= 1 else math.ceil(math.log(1 - _CONFIDENCE) / math.log1p(-share))
