"""Data sets as NumPy batches, with different types for the training and evaluation splits. No torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Callable, Optional, Union

import numpy as np
import numpy.typing as npt

from calibration.data.catalog import DataSet, open_set
from calibration.data.image_sources import FileImages, Images, Samples, largest_value, overlap
from calibration.data.stratified_draw import Indices, Labels, draw_indices
from sparsegpt_core.errors import DataError
from sparsegpt_core.named_inputs import Arrays, InputNames, NamedInputs

__all__ = ["Batch", "Data", "EvaluationSplit", "TrainingSplit", "open_data", "subset_indices"]

Batch = tuple[Arrays, Optional[npt.NDArray[Any]]]
"""Normalised images (N, C, H, W), or all inputs by name, and their labels: classes (N,), or what a metric takes,
(N, ...); None if unknown."""

_MIN_STD, _MAX_ABS_MEAN = 1e-6, 1e6  # beyond them, normalised float32 images lose most of their digits
_MAX_UNIT_MEAN, _MAX_UNIT_STD = 1.0, 8.0  # of images on the scale 0..1; larger ones are meant for 0..255
_MIN_BYTE_VALUE = 50.0  # images on the scale 0..255 have larger values, normalised ones do not


@dataclass(frozen=True, eq=False)
class _Split:
    """What both splits have in common."""

    samples: Samples
    """Images and labels, before normalisation."""
    mean: tuple[float, ...] = (0.0,)
    """Subtracted from the images: one value, or one for each channel."""
    std: tuple[float, ...] = (1.0,)
    """Divides the images after that: one value, or one for each channel."""
    channels_last: bool = False
    """Whether batches of images are (N, H, W, C)."""

    def __len__(self) -> int:
        return len(self.samples.images)

    @property
    def labels(self) -> Optional[Labels]:
        """The class of each sample (N,); None if unknown, or if the labels are no classes."""
        return self.samples.classes

    def batches(self, batch_size: int, indices: Optional[Indices] = None) -> Iterator[Batch]:
        """Yield normalised batches of the samples at ``indices``, or of all samples; inputs by name as they are.

        Raises:
            DataError: An image or input contains NaN or infinity, or cannot be read.
        """
        for inputs, labels in _batches(self.samples, self.mean, self.std, batch_size, indices):
            if self.channels_last and isinstance(inputs, np.ndarray):
                inputs = np.ascontiguousarray(np.moveaxis(inputs, 1, -1))
            yield inputs, labels


class TrainingSplit(_Split):
    """Samples to train and calibrate on.

    Example:
        >>> split = open_data("digits").training
        >>> images, labels = next(split.batches(32))
        >>> images.shape, labels.shape
        ((32, 1, 8, 8), (32,))
    """


class EvaluationSplit(_Split):
    """Samples to measure on. Functions that calibrate or train take a :class:`TrainingSplit` instead.

    Example:
        >>> len(open_data("digits").evaluation)
        599
    """


@dataclass(frozen=True, eq=False)
class Data:
    """A data set that :func:`open_data` opened."""

    spec: str
    """The text that named it."""
    training: TrainingSplit
    """Images to train and calibrate on."""
    evaluation: Optional[EvaluationSplit]
    """Images to measure on; None if there are none."""
    num_classes: Optional[int]
    """Number of classes. For ``npz:`` it is the largest label plus one; None without labels."""
    class_names: Optional[tuple[str, ...]]
    """Names of the classes; None if unknown."""
    image_shape: tuple[int, ...]
    """The shape (C, H, W) of every image; empty for inputs by name."""
    mean: tuple[float, ...]
    """Mean of the normalisation, one value for each channel."""
    std: tuple[float, ...]
    """Standard deviation of the normalisation, one value for each channel."""
    notes: tuple[str, ...] = ()
    """What the user should know about the images."""
    evaluation_spec: Optional[str] = None
    """The text that named other data for the evaluation split; None: that of ``spec``."""

    @property
    def channels_last(self) -> bool:
        """Whether batches of images are (N, H, W, C)."""
        return self.training.channels_last

    @property
    def inputs(self) -> Optional[NamedInputs]:
        """The training samples of inputs by name; None for images."""
        images = self.training.samples.images
        return images if isinstance(images, NamedInputs) else None

    @property
    def sample_size(self) -> int:
        """The number of values in one sample."""
        shapes = self.inputs.shapes.values() if self.inputs else [self.image_shape]
        return sum(map(math.prod, shapes))

    def metadata(self) -> dict[str, Any]:
        """Return what a model's file records about its inputs, as JSON can hold it."""
        if self.inputs:
            return {"inputs": self.inputs.describe()}
        layout = {"channels_last": True} if self.channels_last else {}
        return {"image": list(self.image_shape), "mean": list(self.mean), "std": list(self.std), **layout}


def open_data(
    spec: str,
    data_root: Optional[Path] = None,
    eval_data: Optional[str] = None,
    mean: Optional[Sequence[float]] = None,
    std: Optional[Sequence[float]] = None,
    image_size: Optional[int] = None,
    channels: Optional[int] = None,
    like: Optional[Sequence[int]] = None,
    inputs: Optional[InputNames] = None,
    channels_last: bool = False,
) -> Data:
    """Open a data set.

    Args:
        spec: ``digits``, ``mnist``, ``fashion-mnist``, ``cifar10``, ``cifar100``, ``imagefolder:PATH``,
            ``letterbox:PATH``, ``npz:PATH`` or ``package.module:loader``. The last imports and runs that code.
        data_root: The folder with the named data sets. None searches /usr/share/datasets, ./data and ~/data.
        eval_data: Another spec. Its evaluation split, or all of it if it has none, replaces that of ``spec``.
        mean: Replaces the data set's mean: one value or one for each channel, on the scale 0..1.
        std: Replaces the data set's standard deviation: one value or one for each channel, on the scale 0..1.
        image_size: Height and width in pixels. Images of an imagefolder are cropped; others get a border.
        channels: 3 repeats the grey images of named sets.
        like: The shape (C, H, W) of a model's images. It replaces ``image_size`` and ``channels`` if the data fits.
        inputs: The network's inputs. Those of several come from ``npz:PATH``, by name, or from a loader. They are taken
            as they are: only images are normalised, resized and scaled.
        channels_last: Whether batches of images are (N, H, W, C), as networks of TensorFlow take them.

    Raises:
        DataError: The data is missing, damaged or inconsistent, both splits are the same, or an argument
            does not fit the data.
        InputError: A loader cannot be imported.
        MissingDependencyError: scikit-learn is not installed (``digits``).

    Example:
        >>> data = open_data("digits")
        >>> len(data.training), len(data.evaluation), data.image_shape, data.num_classes
        (1198, 599, (1, 8, 8), 10)
    """
    found = open_set(spec, data_root, image_size, channels, like, inputs)
    if eval_data is not None:
        found = _with_evaluation_of(found, open_set(eval_data, data_root, image_size, channels, like, inputs))
    _check_splits(found)
    shape = found.training.images.shape
    means: tuple[float, ...] = ()
    stds: tuple[float, ...] = ()
    if shape:
        means = _per_channel("mean", found.mean if mean is None else mean, shape[0])
        stds = _per_channel("std", found.std if std is None else std, shape[0])
        if min(stds) < _MIN_STD:
            raise DataError(f"std {min(stds):g} is too small", f"Give `std` numbers of {_MIN_STD:g} or more.")
        _check_scale(found.training.images, means, stds)
    elif any(mean or ()) or any(each != 1 for each in std or ()):
        raise DataError("`mean` and `std` do not fit inputs by name, which stay as they are", "Leave them out.")
    return Data(
        spec=spec,
        training=TrainingSplit(found.training, means, stds, channels_last),
        evaluation=EvaluationSplit(found.evaluation, means, stds, channels_last) if found.evaluation else None,
        num_classes=found.num_classes,
        class_names=found.class_names,
        image_shape=shape,
        mean=means,
        std=stds,
        notes=found.notes,
        evaluation_spec=eval_data,
    )


def subset_indices(split: Union[TrainingSplit, EvaluationSplit], limit: Optional[int], seed: int) -> Indices:
    """Return the sorted indices of a seeded subset. With labels, each class gets its share.

    Args:
        split: The samples.
        limit: Size of the subset. None, or a limit above the number of samples, takes all samples.
        seed: The same seed gives the same subset.

    Raises:
        DataError: ``limit`` is below 1.

    Example:
        >>> subset_indices(open_data("digits").evaluation, limit=3, seed=0).shape
        (3,)
    """
    count = len(split) if limit is None else min(limit, len(split))
    return np.sort(draw_indices(len(split), count, seed, split.labels))


def _with_evaluation_of(data: DataSet, other: DataSet) -> DataSet:
    """``data`` with the evaluation split of ``other``."""
    if data.class_names and other.class_names and data.class_names != other.class_names:
        raise DataError("the evaluation data has other classes than the training data")
    return replace(
        data,
        evaluation=other.evaluation or other.training,
        num_classes=max(data.num_classes or 0, other.num_classes or 0) or None,
        class_names=data.class_names or other.class_names,
        notes=(*data.notes, *other.notes),
    )


def _check_splits(data: DataSet) -> None:
    """Raise DataError if a label exceeds the classes, or the splits differ in shape or are the same."""
    for samples in (data.training, data.evaluation):
        if samples is not None and samples.classes is not None and data.num_classes is not None:
            largest = int(samples.classes.max())
            if largest >= data.num_classes:
                raise DataError(f"label {largest} in data of {data.num_classes} classes", "Labels start at 0.")
    if data.evaluation is None:
        return
    ours, theirs = data.training.images, data.evaluation.images
    if isinstance(ours, NamedInputs) and isinstance(theirs, NamedInputs) and ours.describe() != theirs.describe():
        raise DataError(f"the training inputs are {ours}, the evaluation inputs {theirs}", "Both need the same arrays.")
    if ours.shape != theirs.shape:
        raise DataError(
            f"training images are {ours.shape}, evaluation images {theirs.shape}",
            "Both need the same shape. `image_size` sets the shape of imagefolder: data.",
        )
    if isinstance(ours, FileImages) and isinstance(theirs, FileImages) and ours.letterbox != theirs.letterbox:
        raise DataError("only one of the two splits is letterboxed", "Name both imagefolder: or both letterbox:.")
    if overlap(ours, theirs):
        raise DataError("the training and evaluation images are the same", "Give other images as `eval_data`.")


def _per_channel(name: str, values: Sequence[float], channels: int) -> tuple[float, ...]:
    if len(values) not in (1, channels) or not all(abs(value) <= _MAX_ABS_MEAN for value in values):
        counts = "1 number" if channels == 1 else f"1 or {channels} numbers"
        raise DataError(
            f"{name} {list(values)} does not fit images of {channels} channel{'s' if channels > 1 else ''}",
            f"Give {counts}, at most {_MAX_ABS_MEAN:g} in size.",
        )
    return tuple(float(value) for value in values) * (channels // len(values))


def _check_scale(images: Images, means: Sequence[float], stds: Sequence[float]) -> None:
    """Raise DataError if the images are on the scale 0..1 and the normalisation on 0..255, or the reverse."""
    largest = largest_value(images)
    if largest <= 1 and (max(map(abs, means)) > _MAX_UNIT_MEAN or max(stds) > _MAX_UNIT_STD):
        raise DataError(
            "`mean` or `std` is on the scale 0..255, the images are on 0..1",
            f"Give {_normalisation(means, stds, lambda value, limit: value / 255 if value >= limit else value)}.",
        )
    if largest > _MIN_BYTE_VALUE and 0 < max(means) <= _MAX_UNIT_MEAN and max(stds) <= _MAX_UNIT_MEAN:
        raise DataError(
            f"the images are floats up to {largest:g}, `mean` and `std` are on the scale 0..1",
            f"Save the images as uint8, or give {_normalisation(means, stds, lambda value, _: 255 * value)}.",
        )


def _normalisation(means: Sequence[float], stds: Sequence[float], scaled: Callable[[float, float], float]) -> str:
    """Return the settings of a normalisation on another scale."""
    limits = {"mean": (means, _MAX_UNIT_MEAN), "std": (stds, _MAX_UNIT_STD)}
    texts = (
        f"`{name}={','.join(f'{scaled(value, limit):.4g}' for value in values)}`"
        for name, (values, limit) in limits.items()
    )
    return " and ".join(texts)


def _batches(
    samples: Samples, mean: Sequence[float], std: Sequence[float], batch_size: int, indices: Optional[Indices]
) -> Iterator[Batch]:
    if batch_size < 1:
        raise DataError(f"batch size {batch_size} is below 1")
    order = np.arange(len(samples.images)) if indices is None else indices
    shift, scale = (np.asarray(values, dtype=np.float32).reshape(-1, 1, 1) for values in (mean, std))
    for start in range(0, len(order), batch_size):
        chunk = order[start : start + batch_size]
        inputs = samples.images.read(chunk)
        if isinstance(inputs, NamedInputs):
            _check_finite(inputs, chunk)
            yield inputs, None if samples.labels is None else samples.labels[chunk]
            continue
        images = _unit_scale(inputs)
        with np.errstate(over="ignore"):  # a value outside float32 becomes infinity
            images -= shift
            images /= scale
        finite = np.isfinite(images).all(axis=(1, 2, 3))
        if not finite.all():
            raise DataError(f"image {chunk[finite.argmin()]} contains NaN or infinity", "Fix it, or remove it.")
        yield images, None if samples.labels is None else samples.labels[chunk]


def _check_finite(inputs: NamedInputs, samples: Indices) -> None:
    for name, values in inputs.arrays.items():
        finite = np.isfinite(values).reshape(len(values), -1).all(axis=1)
        if not finite.all():
            raise DataError(f"{name} of sample {samples[finite.argmin()]} contains NaN or infinity", "Fix it.")


def _unit_scale(images: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """A float32 copy: bytes are scaled to 0..1, floats keep their scale."""
    with np.errstate(over="ignore"):  # a value outside float32 becomes infinity, which the caller refuses
        scaled = images.astype(np.float32)
    return scaled / np.float32(255) if images.dtype == np.uint8 else scaled
