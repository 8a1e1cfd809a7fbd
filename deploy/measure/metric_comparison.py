"""Figures of a metric for several versions of one network, with paired intervals of their differences."""

from __future__ import annotations

__all__ = ["MetricsComparison", "MetricsReport"]

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Dict, List, Optional, Union

import numpy as np
import numpy.typing as npt

from deploy.measure.accuracy import Difference, check_reference, check_samples
from deploy.measure.metrics import METRIC_CONTRACT, Figure, Metric
from sparsegpt_core.errors import InputError, NumericsError

_GROUPS = 10  # of images, for the jackknife
_TAIL = 0.025  # of each side of a 95 % interval

MetricsReport = Dict[str, Figure]
"""All figures of a comparison, by name."""


class MetricsComparison:
    """Collects the figures of all versions, batch by batch.

    A function gives one value for each image. The figure is their mean, and the interval of a difference is Student's
    for the paired differences of the images.

    An accumulator gives a figure of all images at once. The interval of a difference is a delete-a-group jackknife:
    the images are divided at random into 10 groups of equal size, and the figures are computed ten times more, each
    time without one group (Kott, "The Delete-a-Group Jackknife", Journal of Official Statistics 17, 2001, 521-526).

    Args:
        metric: The metric.
        names: The names of the versions, including the reference.
        reference: The name of the version to compare with.
        seed: Seed of the groups.

    Raises:
        InputError: The reference is not among the names, or the metric cannot be made.

    Example:
        >>> def error(outputs, labels):
        ...     return {"error": abs(outputs - labels)}
        >>> error.higher_is_better = False
        >>> comparison = MetricsComparison(Metric(error, "error"), ["dense", "sparse"])
        >>> labels = np.array([1.0, 2.0, 3.0])
        >>> comparison.update({"dense": {"y": labels}, "sparse": {"y": labels + [0.1, 0.2, 0.3]}}, labels, 3)
        >>> round(comparison.report()["error"].differences["sparse"].value, 3)
        0.2
    """

    def __init__(self, metric: Metric, names: Sequence[str], reference: str = "dense", seed: int = 0) -> None:
        check_reference(names, reference)
        kind = _Replicates if metric.is_accumulator else _PerImage
        self._metric, self._reference, self._samples = metric, reference, 0
        self._collectors: Dict[str, Union[_Replicates, _PerImage]] = {name: kind(metric, name) for name in names}
        self._groups = _group_numbers(seed)

    def update(self, outputs: Mapping[str, Mapping[str, npt.NDArray[Any]]], labels: Any, count: int) -> None:
        """Take the outputs of every version for ``count`` images, and their labels, one for each, or None.

        Raises:
            InputError: The metric fails, or does not return one value for each image.
            NumericsError: A value is NaN or infinite.
        """
        groups = np.fromiter(islice(self._groups, count), np.int64, count)
        for name, collector in self._collectors.items():
            values = outputs[name]
            collector.update(next(iter(values.values())) if len(values) == 1 else dict(values), labels, groups)
        self._samples += count

    def report(self) -> MetricsReport:
        """Return all figures.

        Raises:
            InputError: There are no samples, the metric fails, or its figures do not have the same names.
            NumericsError: A figure is NaN or infinite.
        """
        check_samples(self._samples)
        found = {name: collector.figures() for name, collector in self._collectors.items()}
        expected = found[self._reference]
        for name, figures in found.items():
            if set(figures) != set(expected):
                raise InputError(
                    f"the metric {self._metric.name} gives {', '.join(figures)} for '{name}' and "
                    f"{', '.join(expected)} for '{self._reference}'",
                    "Give the same figures for all versions.",
                )
        return {figure: self._figure(figure, found) for figure in expected}

    def _figure(self, figure: str, found: Mapping[str, Mapping[str, npt.NDArray[np.float64]]]) -> Figure:
        arrays = {name: figures[figure] for name, figures in found.items()}
        compare = _jackknife if self._metric.is_accumulator else _student
        expected = arrays[self._reference]
        return Figure(
            higher_is_better=self._metric.higher_is_better(figure),
            interval="jackknife" if self._metric.is_accumulator else "paired images",
            samples=self._samples,
            values={name: _point(self._metric, array) for name, array in arrays.items()},
            differences={name: compare(array - expected) for name, array in arrays.items() if name != self._reference},
        )


class _PerImage:
    """The values of a function for each image of one version."""

    def __init__(self, metric: Metric, version: str) -> None:
        self._metric, self._version = metric, version
        self._values: Dict[str, List[npt.NDArray[np.float64]]] = {}

    def update(self, outputs: Any, labels: Any, groups: npt.NDArray[np.int64]) -> None:
        found = _named(self._metric, self._metric.call("its call", self._metric.source, outputs, labels))
        for figure, values in found.items():
            array = _numbers(self._metric, figure, values)
            if array.shape != (len(groups),):
                raise InputError(
                    f"the metric {self._metric.name} gives {figure} of shape {array.shape} for {len(groups)} images",
                    "Give one value for each image, or a class with update and compute for a figure of all images.",
                )
            _check_finite(self._metric, figure, array, self._version)
            self._values.setdefault(figure, []).append(array)

    def figures(self) -> Dict[str, npt.NDArray[np.float64]]:
        """Return the values of each figure, (images)."""
        return {figure: np.concatenate(parts) for figure, parts in self._values.items()}


class _Replicates:
    """Accumulators of one version: one with all images, then one without each group."""

    def __init__(self, metric: Metric, version: str) -> None:
        self._metric, self._version, self._samples = metric, version, 0
        self._accumulators = [metric.accumulator() for _ in range(1 + _GROUPS)]

    def update(self, outputs: Any, labels: Any, groups: npt.NDArray[np.int64]) -> None:
        for left_out, accumulator in enumerate(self._accumulators, start=-1):
            kept = np.flatnonzero(groups != left_out)
            if len(kept):
                self._metric.call("update", accumulator.update, _take(outputs, kept), _take(labels, kept))
        self._samples += len(groups)

    def figures(self) -> Dict[str, npt.NDArray[np.float64]]:
        """Return each figure of all images, then without each group, (1 + groups); of few images only the first."""
        used = self._accumulators if self._samples >= _GROUPS else self._accumulators[:1]
        found = [_named(self._metric, self._metric.call("compute", each.compute)) for each in used]
        arrays = {
            figure: np.array([_scalar(self._metric, figure, each[figure]) for each in found]) for figure in found[0]
        }
        for figure, array in arrays.items():
            _check_finite(self._metric, figure, array, self._version)
        return arrays


def _group_numbers(seed: int) -> Iterator[int]:
    """Yield the group of each image: every 10 images are one of each group, in random order."""
    random = np.random.RandomState(seed)
    while True:
        yield from random.permutation(_GROUPS)


def _point(metric: Metric, array: npt.NDArray[np.float64]) -> float:
    return float(array[0] if metric.is_accumulator else array.mean())


def _student(differences: npt.NDArray[np.float64]) -> Optional[Difference]:
    """Return the mean difference with Student's interval."""
    count, mean = len(differences), float(differences.mean())
    return _around(mean, float(differences.std(ddof=1)) / math.sqrt(count), count - 1) if count > 1 else None


def _jackknife(differences: npt.NDArray[np.float64]) -> Optional[Difference]:
    """Return the difference of all images, with the interval from the differences without each group."""
    value, without = float(differences[0]), differences[1:]
    if not len(without):
        return None
    spread = math.sqrt((_GROUPS - 1) / _GROUPS * float(np.square(without - without.mean()).sum()))
    return _around(value, spread, _GROUPS - 1)


def _around(value: float, standard_error: float, freedom: int) -> Difference:
    from scipy.special import stdtrit  # slow to import

    reach = -float(stdtrit(freedom, _TAIL)) * standard_error
    return Difference(value, value - reach, value + reach)


def _named(metric: Metric, result: Any) -> Mapping[str, Any]:
    found = result if isinstance(result, Mapping) else {metric.name.rpartition(":")[2]: result}
    if not found or not all(isinstance(name, str) for name in found):
        raise InputError(f"the metric {metric.name} gives no named figures", METRIC_CONTRACT)
    return found


def _numbers(metric: Metric, figure: str, values: Any) -> npt.NDArray[np.float64]:
    return np.asarray(metric.call(f"reading {figure}", lambda: np.asarray(values, dtype=np.float64)))


def _scalar(metric: Metric, figure: str, value: Any) -> float:
    array = _numbers(metric, figure, value)
    if array.size != 1:
        raise InputError(
            f"the metric {metric.name} gives {figure} of shape {array.shape} for all images", "Give one number."
        )
    return float(array.reshape(()))


def _check_finite(metric: Metric, figure: str, array: npt.NDArray[np.float64], version: str) -> None:
    if not np.isfinite(array).all():
        raise NumericsError(
            f"the metric {metric.name} gives {figure} as NaN or infinity for '{version}'",
            "Return finite values; where a figure of one image is undefined, use a class with update and compute.",
        )


def _take(values: Any, indices: npt.NDArray[np.int64]) -> Any:
    """Take the rows of some images from an array, a dict of arrays, or a list with one item for each image."""
    if values is None:
        return None
    if isinstance(values, dict):
        return {name: _take(each, indices) for name, each in values.items()}
    return values[indices] if isinstance(values, np.ndarray) else [values[index] for index in indices]
