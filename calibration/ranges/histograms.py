"""How large a tensor's values are: a histogram of |x|, and the squared error of INT8 on what it counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["BINS", "LIMIT", "Histogram"]

BINS = 2048
LIMIT = 127
"""The largest of the symmetric INT8 integers."""


class Histogram:
    """Counts of |x| in equal bins over (0, peak].

    Zeros are counted apart, as they cost nothing to round, and what lies beyond the peak by its exact moments.

    Args:
        peak: The largest |x| that is expected; 0 for a tensor of zeros.
    """

    def __init__(self, peak: float) -> None:
        self.peak = peak
        self.edges = np.linspace(0, peak, BINS + 1)
        self.counts = np.zeros(BINS, dtype=np.int64)
        self.zeros = 0
        self._beyond = np.zeros(3)  # how many, Σ|x|, Σx²

    def add(self, values: npt.NDArray[Any]) -> None:
        """Count finite values of any shape."""
        size = np.abs(values).ravel()
        self.zeros += int(size.size - np.count_nonzero(size))
        beyond = size[size > self.peak].astype(np.float64)
        self._beyond += [beyond.size, beyond.sum(), np.square(beyond).sum()]
        inside = size[(size > 0) & (size <= self.peak)]
        if inside.size:
            bins = (inside * (BINS / self.peak)).astype(np.intp)
            self.counts += np.bincount(np.minimum(bins, BINS - 1), minlength=BINS)

    def relative_error(self, threshold: float) -> float:
        """Return Σ (x − x̂)² / Σ x² of INT8 that saturates at ``threshold``, rounding and saturation included.

        Values count as spread evenly over their bin, which is integrated exactly: from the middle of one rounding
        interval to that of the next, s long, ∫ (x − x̂)² dx = s³ / 12.
        """
        scale = threshold / LIMIT
        levels = np.minimum(np.rint(self.edges / scale), LIMIT)
        error = self._total(levels * scale**3 / 12 + (self.edges - levels * scale) ** 3 / 3, threshold)
        energy = self._total(self.edges**3 / 3, 0.0)
        return error / energy if energy else 0.0

    def _total(self, integral: npt.NDArray[np.float64], threshold: float) -> float:
        """Sum up a squared error whose antiderivative at the edges is given; beyond, x̂ is the threshold."""
        count, total, squares = self._beyond
        inside = float(self.counts @ np.diff(integral)) * BINS / self.peak if self.peak else 0.0
        return inside + float(squares - 2 * threshold * total + count * threshold**2)
