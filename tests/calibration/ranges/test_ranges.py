"""Activation ranges: thresholds against brute force on the values themselves, and inputs that go wrong."""

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.stats import entropy

from calibration.ranges import METHODS, calibrate
from calibration.ranges.histograms import BINS, Histogram
from calibration.ranges.thresholds import find_thresholds
from sparsegpt_core.errors import DataError, InputError, NumericsError

RNG = np.random.default_rng(0)
SHAPES = {
    "normal": RNG.normal(size=40_000).astype(np.float32),
    "relu": np.maximum(RNG.normal(size=40_000), 0).astype(np.float32),
    "heavy": RNG.standard_t(3, size=40_000).astype(np.float32),
    "spiky": np.append(RNG.uniform(size=40_000), [30.0]).astype(np.float32),
}


def histogram(values: np.ndarray, peak: float | None = None) -> Histogram:
    found = Histogram(float(np.abs(values).max()) if peak is None else peak)
    found.add(values)
    return found


def true_error(values: np.ndarray, threshold: float) -> float:
    """Quantise the values themselves, in float64."""
    values = values.astype(np.float64)
    scale = threshold / 127
    rounded = np.clip(np.rint(values / scale), -127, 127) * scale
    return float(np.square(values - rounded).sum() / np.square(values).sum())


def nvidia_entropy(counts: np.ndarray, edges: np.ndarray, stride: int) -> float:
    """The loops of pytorch-quantization's ``_compute_amax_entropy``, step by step."""
    divergences = []
    for stop in range(128, len(counts) + 1, stride):
        groups = np.digitize(range(stop), np.linspace(0, stop, num=129)) - 1
        groups[counts[:stop] == 0] = -1
        density = np.zeros(128)
        for index, group in enumerate(groups):
            if group != -1:
                density[group] += counts[index]
        for group, members in Counter(groups.tolist()).items():
            if group != -1:
                density[group] /= members
        approximation = np.array([0 if group == -1 else density[group] for group in groups])
        reference = counts[:stop].astype(float)
        reference[-1] += counts[stop:].sum()
        divergences.append(entropy(reference, approximation))
    last = len(divergences) - 1 - int(np.argmin(divergences[::-1]))
    return float(edges[128 + last * stride])


@pytest.mark.parametrize("shape", SHAPES)
def test_errors_are_those_of_rounding_the_values(shape):
    values = SHAPES[shape]
    found = histogram(values)
    for share in (1, 0.7, 0.31, 0.1):
        threshold = share * found.peak
        assert found.relative_error(threshold) == pytest.approx(true_error(values, threshold), rel=0.03)


def test_values_beyond_the_peak_are_counted_exactly():
    found = histogram(np.float32([0, 0.5, -3, 4]), peak=1.0)
    assert found.relative_error(1.0) == pytest.approx((2**2 + 3**2) / 25.25, rel=1e-3)


@pytest.mark.parametrize("shape", SHAPES)
def test_mse_finds_the_best_threshold_by_brute_force(shape):
    values = SHAPES[shape]
    peak = float(np.abs(values).max())
    best = min(true_error(values, peak * share) for share in np.linspace(0.01, 1, 200))
    assert true_error(values, find_thresholds(histogram(values))["mse"]) <= 1.03 * best


@pytest.mark.parametrize("shape", SHAPES)
def test_percentiles_are_those_of_all_values(shape):
    values = SHAPES[shape][:39_999]  # so that no percentile falls between two values
    found, width = find_thresholds(histogram(values)), np.abs(values).max() / BINS
    assert found["max"] == np.abs(values).max()
    for percent in (99.9, 99.99):
        exact = np.percentile(np.abs(values), percent, method="inverted_cdf")
        assert -1e-6 <= found[f"percentile-{percent:g}"] - exact <= width * 1.01


@pytest.mark.parametrize("shape", ["relu", "heavy"])
def test_entropy_is_nvidias(shape, monkeypatch):
    monkeypatch.setattr("calibration.ranges.thresholds._ENTROPY_STEP_BINS", 64)
    found = histogram(SHAPES[shape])
    assert find_thresholds(found)["entropy"] == nvidia_entropy(found.counts, found.edges, 64)


@example([3.426349178907017e-37])
@given(st.lists(st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False), min_size=1, max_size=50))
@settings(max_examples=25, deadline=None)
def test_any_tensor_gets_positive_finite_thresholds(values):
    batch = np.float32(values)
    (found,) = calibrate(lambda x: {"x": x}, [batch], [batch]).values()
    assert 0 < found.scale < np.inf
    assert np.float32(found.scale) >= np.finfo(np.float32).tiny
    assert all(0 <= error <= 1.0001 for error in found.errors.values())
    assert found.threshold <= max(1, np.abs(batch).max())


def test_batches_are_like_one_batch():
    values = SHAPES["heavy"].reshape(40, 1, 10, 100)
    whole = calibrate(lambda x: {"x": x}, [values[:30]], [values[30:]])
    parts = calibrate(lambda x: {"x": x}, [values[:7], values[7:30]], [values[30:31], values[31:]])
    assert whole["x"].threshold == parts["x"].threshold
    assert whole["x"].errors == pytest.approx(parts["x"].errors)


def test_auto_takes_the_least_held_out_error():
    tensors = {name: values[:40_000].reshape(4, -1) for name, values in SHAPES.items()}

    def observe(rows):
        return {name: tensor[rows] for name, tensor in tensors.items()}

    fit, held_out = [np.array([0]), np.array([1])], [np.array([2, 3])]
    for name, found in calibrate(observe, fit, held_out).items():
        assert tuple(found.errors) == METHODS
        assert found.errors[found.method] == min(found.errors.values())
        assert found.errors[found.method] == pytest.approx(true_error(tensors[name][2:], found.threshold), rel=0.05)
    for method in METHODS:
        fixed = calibrate(observe, fit, [], method)
        assert all((found.method, found.errors) == (method, {}) for found in fixed.values())
    assert tuple(found.thresholds) == METHODS
    assert json.loads(json.dumps(found.to_json()))["scale"] == found.threshold / 127


def test_a_dead_tensor():
    nothing = np.zeros((2, 3), dtype=np.float32)
    assert calibrate(lambda x: {"x": x}, [nothing], [nothing])["x"].threshold == 1
    alive = calibrate(lambda x: {"x": x}, [nothing], [np.float32([[0.5, 3]])])["x"]
    assert (alive.threshold, alive.errors["max"]) == (1, pytest.approx(0.5**2 / 9.25 + 4 / 9.25, rel=0.1))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", [0, 1])
def test_numbers_that_are_not_finite_name_the_tensor(value, where):
    batches = [np.ones((1, 2), dtype=np.float32) for _ in range(2)]
    batches[where][0, 1] = value
    with pytest.raises(NumericsError, match=r"^layer1 contains NaN or infinity"):
        calibrate(lambda x: {"layer1": x}, batches[:1], batches[1:])


def test_too_few_images_and_unknown_methods():
    batch = [np.ones((1, 2), dtype=np.float32)]
    with pytest.raises(DataError, match="at least one batch"):
        calibrate(lambda x: {"x": x}, [], batch)
    with pytest.raises(DataError, match="held-out images"):
        calibrate(lambda x: {"x": x}, batch, [])
    with pytest.raises(InputError, match="unknown range method 'median'") as caught:
        calibrate(lambda x: {"x": x}, batch, batch, "median")
    assert "entropy" in caught.value.hint


def test_progress_ends():
    batch, steps = np.ones((1, 2), dtype=np.float32), []
    calibrate(lambda x: {"x": x}, [batch] * 2, [batch], progress=lambda *step: steps.append(step))
    assert steps == [("ranges", done, 5) for done in range(6)]
