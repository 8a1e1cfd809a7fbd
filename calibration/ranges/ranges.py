"""Activation ranges for symmetric INT8, from arrays that stream past: nothing of them is kept but histograms."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from calibration.ranges.histograms import LIMIT, Histogram
from calibration.ranges.thresholds import METHODS, find_thresholds
from sparsegpt_core.errors import DataError, InputError, NumericsError
from sparsegpt_core.progress import Progress, silent

__all__ = ["Observe", "Range", "calibrate"]

Array = npt.NDArray[Any]
Observe = Callable[[Array], Mapping[str, Array]]
"""Runs a network on a batch (N, C, H, W) and returns tensors by name, the same names each time."""

_LEAST = LIMIT * float(np.finfo(np.float32).tiny)  # below, the scale would be no normal FP32 number


@dataclass(frozen=True)
class Range:
    """A tensor's range: where INT8 saturates, by the chosen method and, for comparison, by all others.

    ``errors`` maps each method to the relative squared error Σ (x − x̂)² / Σ x² that its threshold makes on the
    held-out images; empty where there were none.
    """

    method: str
    thresholds: Mapping[str, float]
    errors: Mapping[str, float]

    @property
    def threshold(self) -> float:
        """The largest |x| that does not saturate."""
        return self.thresholds[self.method]

    @property
    def scale(self) -> float:
        """What one integer step is worth."""
        return self.threshold / LIMIT

    def to_json(self) -> dict[str, Any]:
        """Return method, threshold, scale and errors."""
        return {"method": self.method, "threshold": self.threshold, "scale": self.scale, "errors": dict(self.errors)}


def calibrate(
    observe: Observe,
    fit: Sequence[Array],
    held_out: Sequence[Array],
    method: str = "auto",
    progress: Progress = silent,
) -> dict[str, Range]:
    """Choose every observed tensor's range.

    The network runs twice on the images to fit, for the largest |x| and for a histogram over it, and once on the
    others.

    Args:
        observe: Gives the tensors of a batch.
        fit: Batches that thresholds are chosen by.
        held_out: Other batches, that thresholds are judged by.
        method: One of :data:`~calibration.ranges.METHODS`, or ``auto``: for each tensor the method with the
            least error on the held-out images.
        progress: Told of the stage ``ranges``, in batches.

    Raises:
        InputError: No such method.
        DataError: No images to fit to, or with ``auto`` none to judge by.
        NumericsError: A tensor holds NaN or infinity.
    """
    if method not in ("auto", *METHODS):
        raise InputError(f"unknown range method '{method}'", f"Use auto, {', '.join(METHODS)}.")
    if not len(fit):
        raise DataError("activation ranges need at least one batch of images", "Raise the number of samples.")
    if method == "auto" and not len(held_out):
        raise DataError("no images are held out to judge ranges by", "Calibrate on fewer samples, or name a method.")
    progress("ranges", 0, 2 * len(fit) + len(held_out))
    tensors = _stream(observe, [*fit, *fit, *held_out], progress)
    peaks = _peaks(tensors, len(fit))
    fitted, judging = (
        _histograms(tensors, count, {name: Histogram(peak) for name, peak in peaks.items()})
        for count in (len(fit), len(held_out))
    )
    return {name: _choose(fitted[name], judging[name] if len(held_out) else None, method) for name in peaks}


def _stream(observe: Observe, batches: Sequence[Array], progress: Progress) -> Iterator[Mapping[str, Array]]:
    for done, batch in enumerate(batches, 1):
        tensors = observe(batch)
        for name, values in tensors.items():
            if not np.isfinite(values).all():
                raise NumericsError(
                    f"{name} holds NaN or infinity on calibration images", "Check the weights, and --mean and --std."
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
    found = {name: max(threshold, _LEAST) for name, threshold in find_thresholds(fitted).items()}
    errors = {} if held_out is None else {name: held_out.relative_error(each) for name, each in found.items()}
    chosen = min(METHODS, key=errors.__getitem__) if method == "auto" else method
    return Range(chosen, found, errors)
