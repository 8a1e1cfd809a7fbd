"""Measures the accuracy of several versions of one classifier on the same images, and their differences."""

from __future__ import annotations

__all__ = [
    "AccuracyComparison",
    "AccuracyReport",
    "ArmAccuracy",
    "Difference",
    "LabelledImages",
    "Predict",
    "check_reference",
    "check_samples",
    "compare_accuracy",
    "paired_difference",
]

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

import numpy as np
import numpy.typing as npt

from sparsegpt_core.errors import DataError, InputError, NumericsError
from sparsegpt_core.named_inputs import Arrays
from sparsegpt_core.progress import Progress, silent

_ROUNDING = 1e-6  # of log-probabilities

Predict = Callable[[Any], npt.NDArray[Any]]
"""A function from images (N, C, H, W), or all inputs, to logits (N, classes)."""

LabelledImages = Tuple[Arrays, Optional[npt.NDArray[Any]]]
"""Images (N, C, H, W), or all inputs by name, and their labels (N), or None without labels."""


@dataclass(frozen=True)
class Difference:
    """A difference: in percentage points, or in a metric's own unit."""

    value: float
    """The difference."""
    low: float
    """The lower end of its 95 % interval."""
    high: float
    """The upper end of its 95 % interval."""


@dataclass(frozen=True)
class ArmAccuracy:
    """One version's accuracy. The last three fields compare with the reference; its own are None."""

    top1: Optional[float]
    """Top-1 accuracy in percent; None without labels."""
    top5: Optional[float]
    """Top-5 accuracy in percent; None without labels or with five classes or fewer."""
    loss: Optional[float]
    """Mean cross-entropy in nats; None without labels."""
    samples: int
    """Number of images."""
    difference: Optional[Difference] = None
    """Top-1 accuracy minus the reference's; None without labels."""
    disagreement: Optional[float] = None
    """Percent of the images whose top-1 class differs from the reference's."""
    kl: Optional[float] = None
    """Mean Kullback-Leibler divergence from the reference, in nats."""


@dataclass(frozen=True)
class AccuracyReport:
    """The accuracy of all versions."""

    reference: str
    """The name of the version that the others are compared with."""
    arms: Mapping[str, ArmAccuracy]
    """Accuracy by the version's name."""
    constant: Tuple[str, ...] = ()
    """The versions whose outputs are the same for every image."""

    @property
    def warnings(self) -> Tuple[str, ...]:
        """Sentences about causes for doubt in the numbers."""
        if not self.constant:
            return ()
        names = ", ".join(self.constant)
        return (f"{names}: the outputs do not depend on the images, so accuracy proves nothing: load trained weights",)

    def to_json(self) -> dict[str, Any]:
        """Return ``{name: {top1, top5, loss, samples, ...}}``; the reference has no keys that compare."""
        comparing = {"difference", "disagreement", "kl"}
        return {
            name: {key: value for key, value in asdict(arm).items() if name != self.reference or key not in comparing}
            for name, arm in self.arms.items()
        }


def compare_accuracy(
    sessions: Mapping[str, Predict],
    batches: Iterable[LabelledImages],
    reference: str = "dense",
    progress: Progress = silent,
    total: int = 0,
) -> AccuracyReport:
    """Run all versions on the same batches.

    Args:
        sessions: The versions by name, including the reference.
        batches: Images with labels or with None. Without labels only disagreement and divergence are measured.
        reference: The name of the version to compare with.
        progress: Receives the stage ``accuracy``, once per batch.
        total: The number of batches, for progress; 0 if unknown.

    Raises:
        InputError: The reference is not among the sessions, there are no samples, or shapes do not fit.
        DataError: Labels do not fit the images or the classes.
        NumericsError: Logits contain NaN or infinity.

    Example:
        >>> images, labels = np.array([[2.0, 1.0], [0.0, 1.0]]), np.array([0, 1])  # the images are the logits
        >>> report = compare_accuracy({"dense": lambda x: x, "sparse": lambda x: x * [1, 3]}, [(images, labels)])
        >>> report.arms["dense"].top1, report.arms["sparse"].top1, report.arms["sparse"].disagreement
        (100.0, 50.0, 50.0)
    """
    comparison = AccuracyComparison(tuple(sessions), reference)
    progress("accuracy", 0, total)
    for done, (images, labels) in enumerate(batches, start=1):
        comparison.update({name: predict(images) for name, predict in sessions.items()}, labels, len(images))
        progress("accuracy", done, total)
    return comparison.report()


class AccuracyComparison:
    """Collects the logits of all versions, batch by batch.

    Args:
        names: The names of the versions, including the reference.
        reference: The name of the version to compare with.

    Raises:
        InputError: The reference is not among the names.
    """

    def __init__(self, names: Sequence[str], reference: str) -> None:
        check_reference(names, reference)
        self._reference = reference
        self._scores: Dict[str, List[_Scores]] = {name: [] for name in names}
        self._ranges = {name: (np.asarray(np.inf), np.asarray(-np.inf)) for name in names}

    def update(self, logits: Mapping[str, npt.NDArray[Any]], labels: Optional[npt.NDArray[Any]], count: int) -> None:
        """Take the logits (N, classes) of every version for ``count`` images, and their labels (N) or None.

        Raises:
            InputError: Shapes do not fit.
            DataError: Labels do not fit the images or the classes.
            NumericsError: Logits contain NaN or infinity.
        """
        logs = {name: _log_probabilities(name, values, count) for name, values in logits.items()}
        _check_batch(logs, labels, self._reference)
        for name, log in logs.items():
            self._scores[name].append(_score(log, logs[self._reference], labels))
            low, high = self._ranges[name]
            self._ranges[name] = (
                np.minimum(low, log.min(0, initial=np.inf)),
                np.maximum(high, log.max(0, initial=-np.inf)),
            )

    def report(self) -> AccuracyReport:
        """Return the accuracy of all versions.

        Raises:
            InputError: There are no samples.
        """
        check_samples(sum(len(part.predicted) for part in self._scores[self._reference]))
        joined = {name: _Scores(*map(np.concatenate, zip(*parts))) for name, parts in self._scores.items()}
        reference, ranges = joined[self._reference], self._ranges.items()
        several = len(reference.predicted) > 1
        return AccuracyReport(
            self._reference,
            {name: _summarise(arm, None if arm is reference else reference) for name, arm in joined.items()},
            tuple(name for name, (low, high) in ranges if several and float((high - low).max()) < _ROUNDING),
        )


def check_reference(names: Sequence[str], reference: str) -> None:
    """Raise InputError if the reference is not among the names."""
    if reference not in names:
        raise InputError(f"'{reference}' is not among {', '.join(names)}", "Name the reference to compare with.")


def check_samples(samples: int) -> None:
    """Raise InputError if there are no samples."""
    if not samples:
        raise InputError("there are no samples to compare on", "Give evaluation data.")


def paired_difference(reference: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> Difference:
    """Return how much more often ``other`` is right than ``reference`` on the same samples.

    The interval is Agresti and Min's adjusted Wald interval for matched pairs. It adds one half to each of the four
    cells, which keeps its width above 0 where no pair differs ("Simple improved confidence intervals for comparing
    matched proportions", Statistics in Medicine 24, 2005, 729-740).

    Args:
        reference: Whether each sample is right, (N).
        other: Whether the same samples are right, (N).
    """
    gained, lost, count = int((other & ~reference).sum()), int((reference & ~other).sum()), len(reference)
    centre = (gained - lost) / (count + 2)
    spread = 1.959964 * math.sqrt((gained + lost + 1) / (count + 2) - centre**2) / math.sqrt(count + 2)
    return Difference(
        value=100 * (gained - lost) / count,
        low=100 * max(-1.0, centre - spread),
        high=100 * min(1.0, centre + spread),
    )


class _Scores(NamedTuple):
    """Values per sample: class and divergence (N); hits and loss (N) with labels, (0) without."""

    predicted: npt.NDArray[Any]
    kl: npt.NDArray[Any]
    hit1: npt.NDArray[Any]
    hit5: npt.NDArray[Any]
    loss: npt.NDArray[Any]


def _log_probabilities(name: str, logits: npt.NDArray[Any], count: int) -> npt.NDArray[np.float64]:
    if logits.ndim != 2 or len(logits) != count:
        raise InputError(f"'{name}' returns logits of shape {logits.shape} for {count} images", "Give a classifier.")
    if not np.isfinite(logits).all():
        raise NumericsError(f"the logits of '{name}' contain NaN or infinity", "Export in FP32, or check the weights.")
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)  # keeps exp from overflowing
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def _check_batch(logs: Mapping[str, npt.NDArray[Any]], labels: Optional[npt.NDArray[Any]], reference: str) -> None:
    count, classes = logs[reference].shape
    for name, log in logs.items():
        if log.shape[1] != classes:
            raise InputError(
                f"'{name}' has {log.shape[1]} classes, '{reference}' has {classes}", "Give versions of one model."
            )
    if labels is None or not count:
        return
    if labels.shape != (count,):
        raise DataError(f"labels of shape {labels.shape} do not fit {count} images", "Give one label for each image.")
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(
            f"labels {labels.min()} to {labels.max()} do not fit {classes} classes", "Give the model's own data set."
        )


def _score(log: npt.NDArray[Any], reference: npt.NDArray[Any], labels: Optional[npt.NDArray[Any]]) -> _Scores:
    best = np.argsort(-log, axis=1, kind="stable")[:, :5]  # (N, 5); stable: the first of equal logits wins
    kl = (np.exp(reference) * (reference - log)).sum(axis=1).clip(min=0)  # (N, classes) -> (N); rounding may go below 0
    if labels is None:
        nothing = np.empty(0)
        return _Scores(best[:, 0], kl, nothing, nothing, nothing)
    hits = best == labels[:, None]  # (N, 5)
    # Top-5 accuracy of five classes or fewer is always 100 %, so it is left out: NaN.
    hit5 = hits.any(axis=1).astype(float) if log.shape[1] > 5 else np.full(len(log), np.nan)
    return _Scores(best[:, 0], kl, hits[:, 0], hit5, -log[np.arange(len(log)), labels])


def _summarise(arm: _Scores, reference: Optional[_Scores]) -> ArmAccuracy:
    samples = len(arm.predicted)
    labelled = len(arm.hit1) == samples
    top5 = 100 * float(arm.hit5.mean()) if labelled else math.nan
    return ArmAccuracy(
        top1=100 * float(arm.hit1.mean()) if labelled else None,
        top5=None if math.isnan(top5) else top5,
        loss=float(arm.loss.mean()) if labelled else None,
        samples=samples,
        difference=paired_difference(reference.hit1, arm.hit1) if reference and labelled else None,
        disagreement=100 * float((arm.predicted != reference.predicted).mean()) if reference else None,
        kl=float(arm.kl.mean()) if reference else None,
    )
