"""Accuracy of several versions of one classifier on the same images, and how far they differ."""

from __future__ import annotations

__all__ = [
    "AccuracyReport",
    "ArmAccuracy",
    "Difference",
    "LabelledImages",
    "Predict",
    "compare_accuracy",
    "paired_difference",
]

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

import numpy as np
import numpy.typing as npt

from sparsegpt_core.errors import DataError, InputError, NumericsError
from sparsegpt_core.progress import Progress, silent

Predict = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]
"""Images (N, C, H, W) to logits (N, classes)."""

LabelledImages = Tuple[npt.NDArray[Any], Optional[npt.NDArray[Any]]]
"""Images (N, C, H, W) and, where known, their labels (N)."""


@dataclass(frozen=True)
class Difference:
    """A difference in percentage points and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class ArmAccuracy:
    """One version's accuracy.

    ``top1``, ``top5`` and ``disagreement`` are in percent, ``loss`` (mean cross-entropy) and ``kl`` in nats.
    ``top5`` is None for five classes or fewer; without labels it, ``top1``, ``loss`` and ``difference`` are None.
    The last three compare with the reference and are None for the reference itself: top-1's difference,
    the samples whose top-1 class is another, and the mean Kullback-Leibler divergence from the reference.
    """

    top1: Optional[float]
    top5: Optional[float]
    loss: Optional[float]
    samples: int
    difference: Optional[Difference] = None
    disagreement: Optional[float] = None
    kl: Optional[float] = None


@dataclass(frozen=True)
class AccuracyReport:
    """Every version's accuracy, by name."""

    reference: str
    arms: Mapping[str, ArmAccuracy]

    def to_json(self) -> dict[str, Any]:
        """Return ``{name: {top1, top5, loss, samples, ...}}``; the reference lacks the comparing keys."""
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
    """Run every version over the same batches.

    Args:
        sessions: The versions by name, the reference among them.
        batches: Images with their labels, or with None: then accuracy is None, the rest is still given.
        reference: The version that the others are compared with.
        progress: Told of every batch, stage ``accuracy``.
        total: Number of batches, for progress; 0 where unknown.

    Raises:
        InputError: The reference is not among the sessions, there are no samples, or shapes do not fit.
        DataError: Labels do not fit the images or the classes.
        NumericsError: Logits hold NaN or infinity.
    """
    if reference not in sessions:
        raise InputError(f"'{reference}' is not among {', '.join(sessions)}", "Name the reference to compare with.")
    scores: Dict[str, List[_Scores]] = {name: [] for name in sessions}
    progress("accuracy", 0, total)
    for done, (images, labels) in enumerate(batches, start=1):
        logs = {name: _log_probabilities(name, predict(images), len(images)) for name, predict in sessions.items()}
        _check_batch(logs, labels, reference)
        for name, log in logs.items():
            scores[name].append(_score(log, logs[reference], labels))
        progress("accuracy", done, total)
    if not any(len(part.predicted) for part in scores[reference]):
        raise InputError("there are no samples to compare on", "Give evaluation data.")
    joined = {name: _Scores(*map(np.concatenate, zip(*parts))) for name, parts in scores.items()}
    return AccuracyReport(
        reference,
        {name: _summarise(arm, None if name == reference else joined[reference]) for name, arm in joined.items()},
    )


def paired_difference(reference: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> Difference:
    """Return by how much ``other`` is right more often than ``reference``, on the same samples.

    The interval is Agresti and Min's adjusted Wald interval for matched pairs: one half is added to each of the
    four cells, so that it does not collapse where no pair is discordant ("Simple improved confidence intervals
    for comparing matched proportions", Statistics in Medicine 24, 2005, 729-740).

    Args:
        reference: Whether each sample is right, (N).
        other: The same samples, (N).
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
    """Per sample: the top-1 class and the divergence (N); with labels, hits and loss (N), else (0)."""

    predicted: npt.NDArray[Any]
    kl: npt.NDArray[Any]
    hit1: npt.NDArray[Any]
    hit5: npt.NDArray[Any]
    loss: npt.NDArray[Any]


def _log_probabilities(name: str, logits: npt.NDArray[Any], count: int) -> npt.NDArray[np.float64]:
    if logits.ndim != 2 or len(logits) != count:
        raise InputError(f"'{name}' gives logits of shape {logits.shape} for {count} images", "It is no classifier.")
    if not np.isfinite(logits).all():
        raise NumericsError(f"the logits of '{name}' hold NaN or infinity", "Export in FP32, or look at the weights.")
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def _check_batch(logs: Mapping[str, npt.NDArray[Any]], labels: Optional[npt.NDArray[Any]], reference: str) -> None:
    count, classes = logs[reference].shape
    for name, log in logs.items():
        if log.shape[1] != classes:
            raise InputError(
                f"'{name}' knows {log.shape[1]} classes, '{reference}' {classes}", "Compare like with like."
            )
    if labels is None or not count:
        return
    if labels.shape != (count,):
        raise DataError(f"labels of shape {labels.shape} do not fit {count} images")
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(
            f"labels {labels.min()} to {labels.max()} do not fit {classes} classes", "Is this its data set?"
        )


def _score(log: npt.NDArray[Any], reference: npt.NDArray[Any], labels: Optional[npt.NDArray[Any]]) -> _Scores:
    best = np.argsort(-log, axis=1, kind="stable")[:, :5]  # stable: of equal logits the first counts, as in argmax
    kl = (np.exp(reference) * (reference - log)).sum(axis=1)
    if labels is None:
        nothing = np.empty(0)
        return _Scores(best[:, 0], kl, nothing, nothing, nothing)
    hits = best == labels[:, None]
    # Top-5 of five classes or fewer is always right: NaN marks that there is none.
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
