"""A histogram of a tensor's |x|, and the squared error of INT8 on the values that it counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["BINS", "INT8_MAX", "Histogram"]

BINS = 2048
"""Bins of a histogram."""

INT8_MAX = 127
"""The largest symmetric INT8 integer."""


class Histogram:
    """Counts of |x| in equal bins over (0, peak].

    Zeros are counted separately, since INT8 represents them exactly. Values above the peak are not binned: their
    count, sum and sum of squares are kept.

    Args:
        peak: The largest |x| that is expected; 0 for a tensor of zeros.
    """

    def __init__(self, peak: float) -> None:
        self.peak = peak
        self.edges = np.linspace(0, peak, BINS + 1)
        self.counts = np.zeros(BINS, dtype=np.int64)
        self.zeros = 0
        self._above_peak = np.zeros(3)  # count, Σ|x|, Σx²

    def add(self, values: npt.NDArray[Any]) -> None:
        """Count finite values of any shape."""
        magnitudes = np.abs(values).ravel()
        self.zeros += int(magnitudes.size - np.count_nonzero(magnitudes))
        above = magnitudes[magnitudes > self.peak].astype(np.float64)
        self._above_peak += [above.size, above.sum(), np.square(above).sum()]
        inside = magnitudes[(magnitudes > 0) & (magnitudes <= self.peak)]
        if inside.size:
            bins = (inside / self.peak * BINS).astype(np.intp)  # BINS / peak may overflow
            self.counts += np.bincount(np.minimum(bins, BINS - 1), minlength=BINS)

    def relative_error(self, threshold: float) -> float:
        """Return Σ (x − x̂)² / Σ x² of INT8 that saturates at ``threshold``. It includes rounding and saturation.

        Values are taken as uniform within their bin, and the error is integrated exactly: over one rounding interval
        of length s (the scale), ∫ (x − x̂)² dx = s³ / 12.
        """
        scale = threshold / INT8_MAX
        # The antiderivative of (x − x̂)² at the edges: complete intervals, and the part of the last one.
        levels = np.minimum(np.rint(self.edges / scale), INT8_MAX)
        error = self._total(levels * scale**3 / 12 + (self.edges - levels * scale) ** 3 / 3, threshold)
        energy = self._total(self.edges**3 / 3, 0.0)
        return error / energy if energy else 0.0

    def _total(self, integral: npt.NDArray[np.float64], threshold: float) -> float:
        """The total squared error, from its antiderivative at the edges. Above the peak x̂ is the threshold."""
        count, total, squares = self._above_peak
        inside = float(self.counts @ np.diff(integral)) * BINS / self.peak if self.peak else 0.0
        return inside + float(squares - 2 * threshold * total + count * threshold**2)
