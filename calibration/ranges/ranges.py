"""Activation ranges for symmetric INT8, from streamed arrays: only histograms of them are kept in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from calibration.ranges.histograms import INT8_MAX, Histogram
from calibration.ranges.thresholds import METHODS, find_thresholds
from sparsegpt_core.errors import DataError, InputError, NumericsError
from sparsegpt_core.progress import Progress, silent

__all__ = ["Observe", "Range", "calibrate"]

Array = npt.NDArray[Any]
Observe = Callable[[Any], Mapping[str, Array]]
"""Runs a network on a batch and returns tensors by name, with the same names each time."""

_MIN_THRESHOLD = INT8_MAX * float(np.finfo(np.float32).tiny)  # below it, the scale is not a normal FP32 number


@dataclass(frozen=True)
class Range:
    """The range of a tensor in INT8."""

    method: str
    """The chosen method."""
    thresholds: Mapping[str, float]
    """The |x| at which INT8 saturates, by method."""
    errors: Mapping[str, float]
    """Σ (x − x̂)² / Σ x² on the held-out images, by method; empty without held-out images."""

    @property
    def threshold(self) -> float:
        """The largest |x| that does not saturate."""
        return self.thresholds[self.method]

    @property
    def scale(self) -> float:
        """The value of one integer step."""
        return self.threshold / INT8_MAX

    def to_json(self) -> dict[str, Any]:
        """Return method, threshold, scale and errors."""
        return {"method": self.method, "threshold": self.threshold, "scale": self.scale, "errors": dict(self.errors)}


def calibrate(
    observe: Observe,
    fit: Sequence[Any],
    held_out: Sequence[Any],
    method: str = "auto",
    progress: Progress = silent,
) -> dict[str, Range]:
    """Choose the range of each observed tensor.

    The network runs twice on ``fit``, for the largest |x| and then for the histogram, and once on ``held_out``.

    Args:
        observe: Returns the tensors of a batch.
        fit: Batches from which thresholds are computed: images (N, C, H, W), or what else ``observe`` takes.
        held_out: Other batches, which measure the error of each threshold.
        method: One of :data:`~calibration.ranges.METHODS`, or ``auto``: for each tensor the method with the
            least error on the held-out images.
        progress: Called with ``"ranges"`` and counts of batches.

    Returns:
        The range of each tensor by name.

    Raises:
        InputError: The method is unknown.
        DataError: There are no images to fit or, with ``auto``, no held-out images.
        NumericsError: A tensor contains NaN or infinity.

    Example:
        >>> batch = np.linspace(-1, 1, 12, dtype=np.float32).reshape(1, 3, 2, 2)
        >>> ranges = calibrate(lambda images: {"doubled": 2 * images}, [batch], [], method="max")
        >>> ranges["doubled"].threshold
        2.0
    """
    if method not in ("auto", *METHODS):
        raise InputError(f"unknown range method '{method}'", f"Use auto, {', '.join(METHODS)}.")
    if not len(fit):
        raise DataError("activation ranges need at least one batch of images", "Raise `samples`.")
    if method == "auto" and not len(held_out):
        raise DataError("automatic ranges need held-out images", "Calibrate on fewer images, or choose a method.")
    progress("ranges", 0, 2 * len(fit) + len(held_out))
    tensors = _stream(observe, [*fit, *fit, *held_out], progress)
    peaks = _peaks(tensors, len(fit))
    fitted, validation = (
        _histograms(tensors, count, {name: Histogram(peak) for name, peak in peaks.items()})
        for count in (len(fit), len(held_out))
    )
    return {name: _choose(fitted[name], validation[name] if len(held_out) else None, method) for name in peaks}


def _stream(observe: Observe, batches: Sequence[Any], progress: Progress) -> Iterator[Mapping[str, Array]]:
    for done, batch in enumerate(batches, 1):
        tensors = observe(batch)
        for name, values in tensors.items():
            if not np.isfinite(values).all():
                raise NumericsError(
                    f"{name} contains NaN or infinity on calibration images", "Check the weights, `mean` and `std`."
                )
        progress("ranges", done, len(batches))
        yield tensors


def _peaks(tensors: Iterator[Mapping[str, Array]], batches: int) -> dict[str, float]:
    peaks: dict[str, float] = {}
    for _ in range(batches):
        for name, values in next(tensors).items():
            peaks[name] = max(peaks.get(name, 0.0), float(np.abs(values).max(initial=0)))
    return peaks


def _histograms(
    tensors: Iterator[Mapping[str, Array]], batches: int, histograms: dict[str, Histogram]
) -> dict[str, Histogram]:
    for _ in range(batches):
        for name, values in next(tensors).items():
            histograms[name].add(values)
    return histograms


def _choose(fitted: Histogram, held_out: Histogram | None, method: str) -> Range:
    found = {name: max(threshold, _MIN_THRESHOLD) for name, threshold in find_thresholds(fitted).items()}
    errors = {} if held_out is None else {name: held_out.relative_error(each) for name, each in found.items()}
    chosen = min(METHODS, key=errors.__getitem__) if method == "auto" else method
    return Range(chosen, found, errors)
