"""Data as NumPy batches: two splits that cannot be mistaken for each other. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np
import numpy.typing as npt

from calibration.data.catalog import DataSet, open_set
from calibration.data.image_sources import Samples, overlap
from calibration.data.stratified_draw import Indices, Labels, draw_indices
from sparsegpt_core.errors import DataError

__all__ = ["Batch", "Data", "EvaluationSplit", "TrainingSplit", "open_data", "subset_indices"]

Batch = tuple[npt.NDArray[np.float32], Optional[Labels]]
"""Normalised images (N, C, H, W) and their classes (N,), None where they are unknown."""

_LEAST_STD, _LARGEST_MEAN = 1e-6, 1e6  # beyond, float32 has few digits left, or none


@dataclass(frozen=True, eq=False)
class _Split:
    """What both splits can do; ``mean`` and ``std`` have one entry or one for each channel."""

    samples: Samples
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __len__(self) -> int:
        return len(self.samples.images)

    @property
    def labels(self) -> Optional[Labels]:
        """The class of each sample (N,), None where unknown."""
        return self.samples.labels

    def batches(self, batch_size: int, indices: Optional[Indices] = None) -> Iterator[Batch]:
        """Yield normalised batches of the samples at ``indices``, by default of all.

        Raises:
            DataError: An image holds NaN or infinity, or cannot be read.
        """
        return _batches(self.samples, self.mean, self.std, batch_size, indices)


class TrainingSplit(_Split):
    """Samples to train and calibrate on."""


class EvaluationSplit(_Split):
    """Samples to measure on, never to train or calibrate on; what calibrates takes a :class:`TrainingSplit` alone."""


@dataclass(frozen=True, eq=False)
class Data:
    """A data set, ready to be read; ``mean`` and ``std`` have one entry for each channel.

    ``num_classes`` is the largest label plus one where only labels tell (``npz:``), None where nothing does.
    """

    spec: str
    training: TrainingSplit
    evaluation: Optional[EvaluationSplit]
    num_classes: Optional[int]
    class_names: Optional[tuple[str, ...]]
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]


def open_data(
    spec: str,
    root: Optional[Path] = None,
    evaluation: Optional[str] = None,
    mean: Optional[Sequence[float]] = None,
    std: Optional[Sequence[float]] = None,
    image_size: Optional[int] = None,
    channels: Optional[int] = None,
    like: Optional[Sequence[int]] = None,
) -> Data:
    """Open a data set.

    Args:
        spec: What to open, see :func:`calibration.data.catalog.open_set`.
        root: The folder that holds named data sets; None looks in the usual places.
        evaluation: Another spec, whose evaluation split (all of it, where it has none) is evaluated on.
        mean: Instead of the set's usual mean: one value or one for each channel, on the scale 0..1.
        std: Instead of the set's usual standard deviation, likewise.
        image_size: Height and width, in pixels: folders' images are cropped, those of named sets get black edges.
        channels: 3 repeats grey images of named sets.
        like: The shape (C, H, W) of a model's images, which stands in for the two where the data can be fitted to it.

    Raises:
        DataError: The data is missing, damaged or inconsistent, both splits are the same, or an option
            does not fit it.
    """
    found = open_set(spec, root, image_size, channels, like)
    if evaluation is not None:
        found = _evaluated_on(found, open_set(evaluation, root, image_size, channels, like))
    _check(found)
    shape = found.training.images.shape
    means = _per_channel("mean", found.mean if mean is None else mean, shape[0])
    stds = _per_channel("std", found.std if std is None else std, shape[0])
    if min(stds) < _LEAST_STD:
        raise DataError(f"std {min(stds):g} is not positive", f"Give --std numbers of {_LEAST_STD:g} or more.")
    return Data(
        spec=spec,
        training=TrainingSplit(found.training, means, stds),
        evaluation=None if found.evaluation is None else EvaluationSplit(found.evaluation, means, stds),
        num_classes=found.num_classes,
        class_names=found.class_names,
        image_shape=shape,
        mean=means,
        std=stds,
    )


def subset_indices(split: Union[TrainingSplit, EvaluationSplit], limit: Optional[int], seed: int) -> Indices:
    """Return the sorted indices of a seeded draw of ``limit`` samples, of all where there are no more.

    Where labels are known every class gets its share.

    Raises:
        DataError: ``limit`` is below 1.
    """
    count = len(split) if limit is None else min(limit, len(split))
    return np.sort(draw_indices(len(split), count, seed, split.labels))


def _evaluated_on(data: DataSet, other: DataSet) -> DataSet:
    """``data`` with the evaluation split of ``other``."""
    if data.class_names and other.class_names and data.class_names != other.class_names:
        raise DataError("the evaluation data has other classes than the training data")
    return replace(
        data,
        evaluation=other.evaluation or other.training,
        num_classes=max(data.num_classes or 0, other.num_classes or 0) or None,
        class_names=data.class_names or other.class_names,
    )


def _check(data: DataSet) -> None:
    """Raise DataError where labels exceed the classes, or the splits differ in shape or are the same."""
    for samples in (data.training, data.evaluation):
        if samples is not None and samples.labels is not None and data.num_classes is not None:
            largest = int(samples.labels.max())
            if largest >= data.num_classes:
                raise DataError(f"label {largest} in data of {data.num_classes} classes", "Labels start at 0.")
    if data.evaluation is None:
        return
    ours, theirs = data.training.images, data.evaluation.images
    if ours.shape != theirs.shape:
        raise DataError(
            f"training images are {ours.shape}, evaluation images {theirs.shape}",
            "Both must have one shape; --image-size sets that of imagefolder: data.",
        )
    if overlap(ours, theirs):
        raise DataError(
            "the same images would be calibrated and evaluated on", "Give --eval-data other images than --data."
        )


def _per_channel(name: str, values: Sequence[float], channels: int) -> tuple[float, ...]:
    if len(values) not in (1, channels) or not all(abs(value) <= _LARGEST_MEAN for value in values):
        raise DataError(
            f"{name} {list(values)} does not fit {channels} channels",
            f"Give 1 or {channels} numbers, none beyond {_LARGEST_MEAN:g}.",
        )
    return tuple(float(value) for value in values) * (channels // len(values))


def _batches(
    samples: Samples, mean: Sequence[float], std: Sequence[float], batch_size: int, indices: Optional[Indices]
) -> Iterator[Batch]:
    if batch_size < 1:
        raise DataError(f"batch size {batch_size} is below 1")
    order = np.arange(len(samples.images)) if indices is None else indices
    shift, scale = (np.asarray(values, dtype=np.float32).reshape(-1, 1, 1) for values in (mean, std))
    for start in range(0, len(order), batch_size):
        chunk = order[start : start + batch_size]
        images = _unit_scale(samples.images.read(chunk))
        with np.errstate(over="ignore"):  # beyond float32 is infinity
            images -= shift
            images /= scale
        finite = np.isfinite(images).all(axis=(1, 2, 3))
        if not finite.all():
            raise DataError(f"image {chunk[finite.argmin()]} holds NaN or infinity", "Mend it, or take it out.")
        yield images, None if samples.labels is None else samples.labels[chunk]


def _unit_scale(images: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """A float32 copy: bytes on the scale 0..1, floats as they are."""
    with np.errstate(over="ignore"):  # beyond float32 is infinity, which the caller refuses
        scaled = images.astype(np.float32)
    return scaled / np.float32(255) if images.dtype == np.uint8 else scaled
