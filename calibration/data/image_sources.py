"""Where pixels come from: arrays in memory, or files decoded when they are asked for. No torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Optional, Protocol, Union

import numpy as np
import numpy.typing as npt

from calibration.data.stratified_draw import Indices, Labels
from sparsegpt_core.errors import DataError, MissingDependencyError

__all__ = ["ArrayImages", "FileImages", "Images", "PaddedImages", "Samples", "overlap"]

_LONGEST = 100  # times the shorter side, which is resized to: beyond, a small file takes gigabytes


class Images(Protocol):
    """Images of one shape that can be read by index."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape (C, H, W) of every image."""

    def __len__(self) -> int: ...

    def read(self, indices: Union[Indices, Sequence[int]]) -> npt.NDArray[Any]:
        """Return the images (N, C, H, W) at ``indices``: uint8 in 0..255, or floats to be taken as they are."""


@dataclass(frozen=True, eq=False)
class ArrayImages:
    """Images in memory.

    Raises:
        DataError: The array is not (N, C, H, W), is empty, or is neither uint8 nor floating point.
    """

    array: npt.NDArray[Any]

    def __post_init__(self) -> None:
        if self.array.ndim != 4 or 0 in self.array.shape:
            raise DataError(f"images have shape {self.array.shape}", "Images are (N, C, H, W), none of them 0.")
        if self.array.dtype != np.uint8 and self.array.dtype.kind != "f":
            raise DataError(f"images have dtype {self.array.dtype}", "Store uint8 in 0..255, or floats.")

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
    """Images of another source amid black, those with one channel repeated in every channel.

    Black is 0, in bytes as on the scale 0..1.

    Raises:
        DataError: The shape (C, H, W) is smaller than the images', or has other channels.
    """

    source: Images
    shape: tuple[int, int, int]

    def __post_init__(self) -> None:
        channels, *sides = self.source.shape
        if channels not in (1, self.shape[0]) or any(have > want for have, want in zip(sides, self.shape[1:])):
            raise DataError(
                f"images of shape {self.source.shape} cannot be padded to {self.shape}",
                "Only smaller and grey images can be fitted: leave --image-size and --channels out.",
            )

    def __len__(self) -> int:
        return len(self.source)

    def read(self, indices: Union[Indices, Sequence[int]]) -> npt.NDArray[Any]:
        """Return the images (N, C, H, W) at ``indices``."""
        found = self.source.read(indices)
        spaces = [want - have for have, want in zip(found.shape[2:], self.shape[1:])]
        padded = np.pad(found, [(0, 0), (0, 0), *((space // 2, space - space // 2) for space in spaces)])
        return np.repeat(padded, self.shape[0] // found.shape[1], axis=1)


@dataclass(frozen=True, eq=False)
class FileImages:
    """Image files as RGB: shorter side resized to 256/224 of ``size``, centre ``size`` × ``size`` cut out.

    The same pixels as torchvision's ``Resize`` and ``CenterCrop``, the usual evaluation transform.
    """

    paths: Sequence[str]
    size: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape (3, size, size) of every image."""
        return 3, self.size, self.size

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, indices: Union[Indices, Sequence[int]]) -> npt.NDArray[np.uint8]:
        """Decode the images (N, 3, size, size) at ``indices``.

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
        except Exception as error:  # a damaged file makes Pillow raise nearly anything
            reason = getattr(error, "strerror", None) or error
            raise DataError(f"cannot read {path}: {reason}", "Mend the image, or take it out of the folder.") from error
        short = 256 * self.size // 224
        width, height = image.size
        scaled = (short, int(short * height / width)) if width < height else (int(short * width / height), short)
        if max(scaled) > _LONGEST * short:
            raise DataError(f"cannot use {path}: {width} × {height} is too thin", "Take it out of the folder.")
        image = image.resize(scaled, Image.Resampling.BILINEAR)
        left, top = (round((side - self.size) / 2) for side in scaled)
        pixels = np.asarray(image, dtype=np.uint8)[top : top + self.size, left : left + self.size]
        return np.moveaxis(pixels, 2, 0)


@dataclass(frozen=True, eq=False)
class Samples:
    """Images and, where they are known, their classes.

    Raises:
        DataError: There are no images, or the labels are not one class number for each.
    """

    images: Images
    labels: Optional[Labels] = None

    def __post_init__(self) -> None:
        if len(self.images) == 0:
            raise DataError("there are no images")
        if self.labels is None:
            return
        if self.labels.dtype.kind not in "iu" or self.labels.ndim != 1:
            raise DataError(
                f"labels have shape {self.labels.shape} and dtype {self.labels.dtype}",
                "Labels are one integer class number for each image.",
            )
        if len(self.labels) != len(self.images):
            raise DataError(f"there are {len(self.labels)} labels for {len(self.images)} images")
        if self.labels.min() < 0:
            raise DataError(f"label {self.labels.min()} is negative", "Class numbers start at 0.")
        object.__setattr__(self, "labels", self.labels.astype(np.int64))


def overlap(first: Images, second: Images) -> bool:
    """Say whether two sources are the same array, or share a file under whatever name."""
    if isinstance(first, PaddedImages) and isinstance(second, PaddedImages):
        return overlap(first.source, second.source)
    if isinstance(first, ArrayImages) and isinstance(second, ArrayImages):
        return np.array_equal(first.array, second.array)
    if isinstance(first, FileImages) and isinstance(second, FileImages):
        return not _identities(first.paths).isdisjoint(_identities(second.paths))
    return False


def _identities(paths: Sequence[str]) -> set[tuple[int, int]]:
    """What two names of one file have in common, links followed."""
    try:
        return {(stat.st_dev, stat.st_ino) for stat in map(os.stat, paths)}
    except OSError as error:
        raise DataError(f"cannot read {error.filename}: {error.strerror}", "Take it out of the folder.") from error
