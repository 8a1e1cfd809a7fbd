"""At which |x| INT8 should saturate: by the largest value, a percentile, entropy or least squared error."""

from __future__ import annotations

import numpy as np
from scipy.special import rel_entr

from calibration.ranges.histograms import BINS, LIMIT, Histogram

__all__ = ["METHODS", "find_thresholds"]

_PERCENTILES = (99.9, 99.99, 99.999)
METHODS = ("max", *(f"percentile-{each:g}" for each in _PERCENTILES), "entropy", "mse")
"""The ways to choose a threshold."""

_LEVELS = LIMIT + 1
_STRIDE = 4  # bins between two thresholds that entropy tries
_GRID = np.geomspace(1, 1 / 64, 128)  # thresholds that least squared error tries, relative to the largest value


def find_thresholds(histogram: Histogram) -> dict[str, float]:
    """Return every method's threshold, positive; 1 for a tensor of zeros."""
    if not histogram.peak:
        return dict.fromkeys(METHODS, 1.0)
    found = (
        histogram.peak,
        *(_percentile(histogram, each) for each in _PERCENTILES),
        _entropy(histogram),
        min(histogram.peak * _GRID, key=histogram.relative_error),
    )
    return dict(zip(METHODS, (float(each) for each in found)))


def _percentile(histogram: Histogram, percent: float) -> float:
    """The upper edge of the bin where so many percent of all values, zeros included, are reached."""
    reached = histogram.zeros + np.cumsum(histogram.counts)
    return float(histogram.edges[np.searchsorted(reached, reached[-1] * percent / 100) + 1])


def _entropy(histogram: Histogram) -> float:
    """The threshold whose 128 levels resemble the values most, by Kullback-Leibler divergence.

    "8-bit inference with TensorRT" (Migacz, 2017). Of thresholds that are equally good the largest is taken, as
    NVIDIA's pytorch-quantization does. Its exception for the bin of zero is not needed: zeros are not counted.
    """
    tried = range(BINS, _LEVELS - 1, -_STRIDE)
    return float(histogram.edges[min(tried, key=lambda bins: _divergence(histogram.counts, bins))])


def _divergence(counts: np.ndarray[tuple[int, ...], np.dtype[np.int64]], bins: int) -> float:
    """KL divergence of the first bins, the rest added to the last of them, from their 128-level approximation."""
    level = np.arange(bins) * _LEVELS // bins
    kept = counts[:bins]
    if not kept.any():
        return np.inf
    filled = np.bincount(level, kept > 0)
    mean = np.bincount(level, kept) / np.maximum(filled, 1)
    approximation = np.where(kept > 0, mean[level], 0)
    reference = kept.astype(np.float64)
    reference[-1] += counts[bins:].sum()
    return float(rel_entr(reference / reference.sum(), approximation / approximation.sum()).sum())
