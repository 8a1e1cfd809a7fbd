"""The |x| at which INT8 saturates, by four methods: maximum, percentile, entropy, least squared error."""

from __future__ import annotations

import numpy as np

from calibration.ranges.histograms import BINS, INT8_MAX, Histogram

__all__ = ["METHODS", "find_thresholds"]

_PERCENTILES = (99.9, 99.99, 99.999)
METHODS = ("max", *(f"percentile-{each:g}" for each in _PERCENTILES), "entropy", "mse")
"""Names of the methods that choose a threshold."""

_LEVELS = INT8_MAX + 1
_ENTROPY_STEP_BINS = 4  # bins between two thresholds that entropy tries
_MSE_THRESHOLDS = np.geomspace(1, 1 / 64, 128)  # thresholds that least squared error tries, relative to the peak


def find_thresholds(histogram: Histogram) -> dict[str, float]:
    """Return the threshold of each method. It is positive; for a tensor of zeros it is 1."""
    if not histogram.peak:
        return dict.fromkeys(METHODS, 1.0)
    found = (
        histogram.peak,
        *(_percentile(histogram, each) for each in _PERCENTILES),
        _entropy(histogram),
        min(histogram.peak * _MSE_THRESHOLDS, key=histogram.relative_error),
    )
    return dict(zip(METHODS, (float(each) for each in found)))


def _percentile(histogram: Histogram, percent: float) -> float:
    """The upper edge of the first bin below which lie ``percent`` of all values, including zeros."""
    reached = histogram.zeros + np.cumsum(histogram.counts)
    return float(histogram.edges[np.searchsorted(reached, reached[-1] * percent / 100) + 1])


def _entropy(histogram: Histogram) -> float:
    """The threshold with the least Kullback-Leibler divergence between the values and their 128 levels.

    "8-bit inference with TensorRT" (Migacz, 2017). Among equal thresholds the largest is taken, as in NVIDIA's
    pytorch-quantization. Its special case for the bin of zero is not needed, since the histogram has no zeros.
    """
    tried = range(BINS, _LEVELS - 1, -_ENTROPY_STEP_BINS)
    return float(histogram.edges[min(tried, key=lambda bins: _divergence(histogram.counts, bins))])


def _divergence(counts: np.ndarray[tuple[int, ...], np.dtype[np.int64]], bins: int) -> float:
    """KL divergence between the first ``bins`` bins, clipped, and their approximation by 128 levels."""
    from scipy.special import rel_entr  # slow to import

    # Each level is the mean of its non-empty bins.
    level = np.arange(bins) * _LEVELS // bins
    kept = counts[:bins]
    if not kept.any():
        return np.inf
    filled = np.bincount(level, kept > 0)
    mean = np.bincount(level, kept) / np.maximum(filled, 1)
    approximation = np.where(kept > 0, mean[level], 0)
    # The reference is clipped: all values above the threshold are in its last bin.
    reference = kept.astype(np.float64)
    reference[-1] += counts[bins:].sum()
    return float(rel_entr(reference / reference.sum(), approximation / approximation.sum()).sum())
