"""Sources of images: arrays in memory, or files that are decoded when they are read. No torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Optional, Protocol, Union

import numpy as np
import numpy.typing as npt

from calibration.data.resizing import Size, crop, letterbox
from calibration.data.stratified_draw import Indices, Labels
from sparsegpt_core.errors import DataError, MissingDependencyError
from sparsegpt_core.named_inputs import NamedInputs

__all__ = ["ArrayImages", "FileImages", "Images", "PaddedImages", "Samples", "largest_value", "overlap"]

_SAMPLED_IMAGES = 64
_MAX_ASPECT_RATIO = 100  # above it, resizing the shorter side could turn a small file into gigabytes


class Images(Protocol):
    """Images of one shape, or all inputs of a network, that can be read by index."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape (C, H, W) of every image; empty for inputs by name."""

    def __len__(self) -> int: ...

    def read(self, indices: Union[Indices, Sequence[int]]) -> Any:
        """Return the images (N, C, H, W) at ``indices``: uint8 in 0..255, or floats on their own scale."""


@dataclass(frozen=True, eq=False)
class ArrayImages:
    """Images in memory.

    Raises:
        DataError: The array is not (N, C, H, W), is empty, or is neither uint8 nor floating point.
    """

    array: npt.NDArray[Any]

    def __post_init__(self) -> None:
        if self.array.ndim != 4 or 0 in self.array.shape:
            raise DataError(f"images have shape {self.array.shape}", "Give images (N, C, H, W) with no dimension of 0.")
        if self.array.dtype != np.uint8 and self.array.dtype.kind != "f":
            raise DataError(f"images have dtype {self.array.dtype}", "Give uint8 in 0..255, or floats.")

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape (C, H, W) of every image."""
        _, channels, height, width = self.array.shape
        return channels, height, width

    def __len__(self) -> int:
        return len(self.array)

    def read(self, indices: Union[Indices, Sequence[int]]) -> npt.NDArray[Any]:
        """Return the images (N, C, H, W) at ``indices``."""
        return self.array[np.asarray(indices, dtype=np.int64)]


@dataclass(frozen=True, eq=False)
class PaddedImages:
    """Images of another source with a black border; a single channel is repeated in every channel.

    Raises:
        DataError: The images do not fit into ``shape``, or have other channels.
    """

    source: Images
    """Images whose black is 0."""
    shape: tuple[int, ...]
    """The shape (C, H, W) after padding."""

    def __post_init__(self) -> None:
        channels, *sides = self.source.shape
        if channels not in (1, self.shape[0]) or any(have > want for have, want in zip(sides, self.shape[1:])):
            raise DataError(
                f"images of shape {self.source.shape} cannot be padded to {self.shape}",
                "Only smaller images and grey ones can be adapted. Leave `image_size` and `channels` out.",
            )

    def __len__(self) -> int:
        return len(self.source)

    def read(self, indices: Union[Indices, Sequence[int]]) -> npt.NDArray[Any]:
        """Return the images (N, C, H, W) at ``indices``."""
        images = self.source.read(indices)
        borders = [want - have for have, want in zip(images.shape[2:], self.shape[1:])]
        padded = np.pad(images, [(0, 0), (0, 0), *((border // 2, border - border // 2) for border in borders)])
        return np.repeat(padded, self.shape[0] // images.shape[1], axis=1)


@dataclass(frozen=True, eq=False)
class FileImages:
    """Image files as RGB images of one size: by default as torchvision's ``Resize`` and ``CenterCrop`` make them."""

    paths: Sequence[str]
    """The image files."""
    size: Size
    """Height and width, in pixels."""
    letterbox: bool = False
    """Whether images are shown whole, with a grey border, as YOLO detectors see them."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape (3, H, W) of every image."""
        return 3, *self.size

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, indices: Union[Indices, Sequence[int]]) -> npt.NDArray[np.uint8]:
        """Decode the images (N, 3, H, W) at ``indices``.

        Raises:
            DataError: A file is not an image, or damaged.
            MissingDependencyError: Pillow is not installed.
        """
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            return np.stack(list(pool.map(self._decode, indices)))

    def _decode(self, index: int) -> npt.NDArray[np.uint8]:
        try:
            from PIL import Image
        except ImportError as error:
            raise MissingDependencyError("image files need Pillow", "pip install pillow") from error
        path = self.paths[index]
        try:
            with Image.open(path) as file:
                image = file.convert("RGB")
        except Exception as error:  # Pillow raises many types on a damaged file
            reason = getattr(error, "strerror", None) or error
            raise DataError(f"cannot read {path}: {reason}", "Fix the image, or remove it from the folder.") from error
        if max(image.size) > _MAX_ASPECT_RATIO * min(image.size):
            size = " × ".join(map(str, image.size))
            raise DataError(f"cannot use {path}: {size} is too elongated", "Remove it from the folder.")
        resized = (letterbox if self.letterbox else crop)(image, self.size)
        return np.moveaxis(np.asarray(resized, dtype=np.uint8), 2, 0)  # (H, W, 3) -> (3, H, W)


@dataclass(frozen=True, eq=False)
class Samples:
    """Images, or all inputs of a network, and their labels.

    Raises:
        DataError: There are no images, or not exactly one label for each image.
    """

    images: Images
    """At least one image, or :class:`~sparsegpt_core.named_inputs.NamedInputs`."""
    labels: Optional[npt.NDArray[Any]] = None
    """Class numbers (N,), from 0, or what a metric takes, (N, ...): maps, images or boxes; None if unknown."""

    def __post_init__(self) -> None:
        if len(self.images) == 0:
            raise DataError("there are no images")
        if self.labels is None:
            return
        is_class = self.labels.ndim == 1
        is_column = self.labels.dtype.kind in "iu" and self.labels.shape[1:] == (1,)
        if self.labels.ndim == 0 or is_column or self.labels.dtype.kind not in ("iu" if is_class else "iufb"):
            raise DataError(
                f"labels have shape {self.labels.shape} and dtype {self.labels.dtype}",
                "Give one integer class number for each image, or numbers (N, ...) for a metric.",
            )
        if _is_one_hot(self.labels):
            raise DataError(
                f"labels of shape {self.labels.shape} are one-hot", "Give class numbers: labels.argmax(axis=1)."
            )
        if len(self.labels) != len(self.images):
            raise DataError(f"there are {len(self.labels)} labels for {len(self.images)} images")
        if not is_class:
            return
        if self.labels.min() < 0:
            raise DataError(f"label {self.labels.min()} is negative", "Class numbers start at 0.")
        object.__setattr__(self, "labels", self.labels.astype(np.int64))

    @property
    def classes(self) -> Optional[Labels]:
        """The class numbers (N,); None if the labels are unknown or something else."""
        return self.labels if self.labels is not None and self.labels.ndim == 1 else None


def _is_one_hot(labels: npt.NDArray[Any]) -> bool:
    """Whether each row of labels (N, classes) is 1 for one class and 0 for all others."""
    if labels.ndim != 2 or labels.shape[1] < 2:
        return False
    return bool(((labels == 0) | (labels == 1)).all() and (labels.sum(axis=1) == 1).all())


def overlap(first: Images, second: Images) -> bool:
    """Return whether two sources have equal arrays, or share a file, under any name."""
    if isinstance(first, PaddedImages) and isinstance(second, PaddedImages):
        return overlap(first.source, second.source)
    if isinstance(first, ArrayImages) and isinstance(second, ArrayImages):
        return np.array_equal(first.array, second.array)
    if isinstance(first, NamedInputs) and isinstance(second, NamedInputs):
        return all(np.array_equal(values, second.arrays[name]) for name, values in first.arrays.items())
    if isinstance(first, FileImages) and isinstance(second, FileImages):
        return not _identities(first.paths).isdisjoint(_identities(second.paths))
    return False


def largest_value(images: Images) -> float:
    """Return the largest value that some of the images have, on the scale on which they are normalised.

    Bytes are scaled to 0..1, so that theirs is 1. Of floats at most 64 images are read.
    """
    if isinstance(images, PaddedImages):
        return largest_value(images.source)
    if isinstance(images, FileImages) or (isinstance(images, ArrayImages) and images.array.dtype == np.uint8):
        return 1.0
    some = images.read(np.linspace(0, len(images) - 1, min(_SAMPLED_IMAGES, len(images))).astype(np.int64))
    return float(np.nan_to_num(some, nan=0.0, posinf=0.0, neginf=0.0).max())


def _identities(paths: Sequence[str]) -> set[tuple[int, int]]:
    """Device and inode of each file: equal for two names of the same file. Links are followed."""
    try:
        return {(stat.st_dev, stat.st_ino) for stat in map(os.stat, paths)}
    except OSError as error:
        raise DataError(f"cannot read {error.filename}: {error.strerror}", "Remove it from the folder.") from error
