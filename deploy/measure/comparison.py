"""Compares versions of one network in one pass over the images: accuracy or output errors, and a metric's figures."""

from __future__ import annotations

__all__ = ["Comparison", "compare_versions"]

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Dict, Optional, Tuple

import numpy as np
import numpy.typing as npt

from deploy.measure.accuracy import AccuracyComparison, AccuracyReport, LabelledImages, check_reference, check_samples
from deploy.measure.metric_comparison import MetricsComparison, MetricsReport
from deploy.measure.metrics import Metric
from deploy.measure.output_errors import Outputs, OutputsComparison, OutputsReport
from sparsegpt_core.progress import Progress, silent


@dataclass(frozen=True)
class Comparison:
    """What was compared. Exactly one of the first two is not None."""

    accuracy: Optional[AccuracyReport]
    """Of classifiers: their first output is (N, classes), and the labels are class numbers or None."""
    outputs: Optional[OutputsReport]
    """Of all other networks."""
    metrics: Optional[MetricsReport]
    """The metric's figures by name; None without a metric."""

    @property
    def versions(self) -> Tuple[str, ...]:
        """The versions without the reference's name where only output errors were compared."""
        report = self.accuracy.arms if self.accuracy else self.outputs.relative_errors if self.outputs else {}
        return tuple(report)

    @property
    def warnings(self) -> Tuple[str, ...]:
        """Sentences about causes for doubt in the numbers."""
        return self.accuracy.warnings if self.accuracy else ()

    def to_json(self) -> Dict[str, Any]:
        """Return the reports under ``accuracy``, ``outputs`` and ``metrics``; null where there is none."""
        return {
            "accuracy": self.accuracy and self.accuracy.to_json(),
            "outputs": self.outputs and self.outputs.to_json(),
            "metrics": self.metrics and {name: figure.to_json() for name, figure in self.metrics.items()},
        }


def compare_versions(
    sessions: Mapping[str, Outputs],
    batches: Iterable[LabelledImages],
    metric: Optional[Metric] = None,
    reference: str = "dense",
    seed: int = 0,
    progress: Progress = silent,
    total: int = 0,
) -> Comparison:
    """Run all versions once on the same batches.

    Args:
        sessions: The versions by name, including the reference.
        batches: Images with labels or None.
        metric: Compared beside accuracy or output errors.
        reference: The name of the version to compare with.
        seed: Seed of the groups of images behind a metric's interval.
        progress: Receives the stage ``accuracy`` or ``outputs``, once per batch.
        total: The number of batches, for progress; 0 if unknown.

    Raises:
        InputError: The reference is not among the sessions, there are no samples, outputs do not fit, or the metric
            fails.
        DataError: Labels do not fit the images or the classes.
        NumericsError: Outputs or figures contain NaN or infinity.

    Example:
        >>> images, labels = np.array([[2.0, 1.0], [0.0, 1.0]]), np.array([0, 1])  # the images are the logits
        >>> sessions = {"dense": lambda x: {"logits": x}, "sparse": lambda x: {"logits": x * [1, 3]}}
        >>> compare_versions(sessions, [(images, labels)]).accuracy.arms["sparse"].top1
        50.0
    """
    names = tuple(sessions)
    check_reference(names, reference)
    accuracy, errors = AccuracyComparison(names, reference), OutputsComparison(names, reference)
    figures = metric and MetricsComparison(metric, names, reference, seed)
    classifies, samples, stage = False, 0, "accuracy"
    for done, (images, labels) in enumerate(batches, start=1):
        outputs = {name: run(images) for name, run in sessions.items()}
        if done == 1:
            classifies = _classifies(outputs[reference], labels)
            stage = "accuracy" if classifies else "outputs"
            progress(stage, 0, total)
        if classifies:
            accuracy.update({name: _first(values) for name, values in outputs.items()}, labels, len(images))
        else:
            errors.update(outputs, len(images))
        if figures:
            figures.update(outputs, labels, len(images))
        samples += len(images)
        progress(stage, done, total)
    check_samples(samples)
    return Comparison(
        accuracy.report() if classifies else None,
        None if classifies else errors.report(),
        figures.report() if figures else None,
    )


def _classifies(outputs: Mapping[str, npt.NDArray[Any]], labels: Any) -> bool:
    are_classes = labels is None or (isinstance(labels, np.ndarray) and labels.ndim == 1 and labels.dtype.kind in "iu")
    logits = _first(outputs)
    return are_classes and logits.ndim == 2 and logits.shape[1] > 1


def _first(outputs: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
    return next(iter(outputs.values()))
