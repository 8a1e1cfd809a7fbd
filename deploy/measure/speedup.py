"""The speed-up of one version over another, with an interval that covers both the rounds and the rebuilds."""

from __future__ import annotations

__all__ = ["Ratio", "compare"]

import math
from dataclasses import dataclass
from typing import Optional, Tuple

import numpy as np
import numpy.typing as npt

_BOOTSTRAP_RESAMPLES = 2000  # draws per interval
_TAIL = 0.025  # of each side of a 95 % interval


@dataclass(frozen=True)
class Ratio:
    """A speed-up."""

    ratio: float
    """How many times as fast; 2 is twice as fast."""
    low: float
    """The lower end of its 95 % interval."""
    high: float
    """The upper end of its 95 % interval."""
    rebuilds: Optional[int] = None
    """Builds of each engine. With 1 the interval is of this build; other builds may be faster or slower. None where
    nothing is built."""


def compare(before_ms: npt.NDArray[np.float64], after_ms: npt.NDArray[np.float64], seed: int = 0) -> Ratio:
    """Return how many times as fast the engines of ``after_ms`` are as those of ``before_ms``.

    The ratio is the geometric mean over rebuilds and rounds. Engines of one rebuild are a pair, since they share a
    timing cache. The interval is the wider of two: a bootstrap over rounds, and Student's over the pairs. The builder
    chooses kernels by noisy times, so engines of one network differ, and a single pair says nothing about other builds.

    Args:
        before_ms: The median of each engine (rows) in each round (columns), in milliseconds.
        after_ms: The same of the other version. Rows and columns correspond to those of ``before_ms``.
        seed: Seed of the bootstrap.

    Example:
        >>> import numpy as np
        >>> before = np.array([[2.0, 2.2, 2.0], [2.1, 2.3, 2.1], [2.0, 2.2, 2.0]])
        >>> found = compare(before, before / 2)
        >>> round(found.ratio, 3), found.rebuilds
        (2.0, 3)
    """
    logs = np.log(before_ms) - np.log(after_ms)  # (rebuilds, rounds)
    intervals = [_over_rounds(logs.mean(axis=0), seed)]
    if len(logs) > 1:
        intervals.append(_over_rebuilds(logs.mean(axis=1)))
    low, high = max(intervals, key=lambda ends: ends[1] - ends[0])
    return Ratio(math.exp(logs.mean()), math.exp(low), math.exp(high), len(logs))


def _over_rounds(logs: npt.NDArray[np.float64], seed: int) -> Tuple[float, float]:
    """Return a percentile bootstrap interval of the mean.

    Its levels make it as wide as Student's for few rounds (Hesterberg, "What Teachers Should Know About the
    Bootstrap", The American Statistician 69, 2015, section 3.3).
    """
    from scipy.special import ndtr, stdtrit  # slow to import

    count = len(logs)
    draws = np.random.default_rng(seed).choice(logs, (_BOOTSTRAP_RESAMPLES, count)).mean(axis=1)
    tail = 100 * float(ndtr(stdtrit(count - 1, _TAIL) * math.sqrt(count / (count - 1))))
    low, high = np.percentile(draws, (tail, 100 - tail))
    return float(low), float(high)


def _over_rebuilds(logs: npt.NDArray[np.float64]) -> Tuple[float, float]:
    """Return Student's interval of the mean."""
    from scipy.special import stdtrit

    count, mean = len(logs), float(logs.mean())
    reach = -float(stdtrit(count - 1, _TAIL)) * float(logs.std(ddof=1)) / math.sqrt(count)
    return mean - reach, mean + reach
