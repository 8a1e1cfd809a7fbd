"""Reads the images of a user's loader. It runs that code. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Optional

import numpy as np
import numpy.typing as npt

from calibration.data.image_sources import ArrayImages, Samples
from sparsegpt_core.errors import DataError, SparseGPTError, first_line
from sparsegpt_core.user_code import import_object

__all__ = ["names_code", "read_loader"]

_IMAGE_KEYS = ("image", "images", "pixel_values", "input", "inputs", "x")
_LABEL_KEYS = ("label", "labels", "target", "targets", "y")
_MAX_BYTES, _MAX_IMAGES = 2**31, 100_000  # of images in memory

Array = npt.NDArray[Any]


def names_code(spec: str) -> bool:
    """Return whether a data set is ``package.module:loader`` or ``path/to/FILE.py:loader``, which runs code.

    Example:
        >>> names_code("mynet.data:calibration"), names_code("npz:images.npz"), names_code("cifar10")
        (True, False, False)
    """
    kind, colon, _ = spec.partition(":")
    return bool(kind and colon) and kind not in ("imagefolder", "letterbox", "npz")


def read_loader(spec: str) -> tuple[Samples, Optional[str]]:
    """Import a loader and read its images.

    A loader is an iterable, such as a ``DataLoader`` or a ``Dataset``, or a function without arguments that returns
    one. It gives images (C, H, W) or batches of them (N, C, H, W), alone, as (images, labels), or in dicts.

    Args:
        spec: ``package.module:loader`` or ``path/to/FILE.py:loader``.

    Returns:
        The images and labels, and a note if the loader has more images than are kept in memory.

    Raises:
        InputError: The loader cannot be imported.
        DataError: It fails, or gives something that is no image.
    """
    images: list[Array] = []
    labels: Optional[list[Array]] = []
    count, size, note = 0, 0, None
    try:
        for item in _items(import_object(spec)):
            own, truth = _images_and_labels(item, spec)
            if images and own.shape[1:] != images[0].shape[1:]:
                raise DataError(
                    f"{spec} gives images of shapes {images[0].shape[1:]} and {own.shape[1:]}", "Give one shape."
                )
            images.append(own)
            labels = None if labels is None or truth is None else [*labels, truth]
            count, size = count + len(own), size + own.nbytes
            if size >= _MAX_BYTES or count >= _MAX_IMAGES:
                note = f"{spec} gives more images than are kept in memory: its first {count} are used"
                break
    except SparseGPTError:
        raise
    except (Exception, SystemExit) as error:  # a user's code may raise anything
        raise DataError(f"{spec} failed: {type(error).__name__}: {first_line(error)}") from error
    if not images:
        raise DataError(f"{spec} gives no images")
    return Samples(ArrayImages(np.concatenate(images)), None if labels is None else np.concatenate(labels)), note


def _items(loader: Any) -> Iterable[Any]:
    """Return what a loader gives. A ``Dataset`` is read in random order: its first images are then of all classes."""
    has_items = hasattr(loader, "__getitem__")
    if isinstance(loader, type) or (callable(loader) and not has_items and not hasattr(loader, "__iter__")):
        return _items(loader())
    if has_items and hasattr(loader, "__len__") and not hasattr(loader, "__iter__"):
        return _shuffled(loader)
    items: Iterable[Any] = loader
    return items


def _shuffled(dataset: Any) -> Iterator[Any]:
    for index in np.random.RandomState(0).permutation(len(dataset)):
        yield dataset[int(index)]


def _images_and_labels(item: Any, spec: str) -> tuple[Array, Optional[Array]]:
    """Return the images (N, C, H, W) of an item and their classes (N,); None without integers for classes."""
    label = None
    if isinstance(item, Mapping):
        image = next((item[key] for key in _IMAGE_KEYS if key in item), None)
        label = next((item[key] for key in _LABEL_KEYS if key in item), None)
        if image is None:
            raise DataError(
                f"{spec} gives a dict of {', '.join(map(str, item))}", f"Name the images {', '.join(_IMAGE_KEYS)}."
            )
    elif isinstance(item, (tuple, list)) and len(item) > 1 and _array(item[1]).ndim < 3 <= _array(item[0]).ndim:
        image, label = item[:2]
    elif isinstance(item, (tuple, list)) and len(item) == 1:
        image = item[0]
    else:
        image = np.stack([_array(each) for each in item]) if isinstance(item, (tuple, list)) else item
    images = _array(image)
    if images.ndim not in (3, 4) or images.dtype == object:
        raise DataError(
            f"{spec} gives a {type(image).__name__} of shape {images.shape}",
            "Give images (C, H, W) or batches (N, C, H, W): tensors, arrays or lists.",
        )
    images = images.reshape(-1, *images.shape[-3:])
    labels = _array(label).reshape(-1)
    return images, labels if labels.dtype.kind in "iu" and len(labels) == len(images) else None


def _array(value: Any) -> Array:
    """Return a tensor, a PIL image, an array or nested lists as an array; one of objects for anything else."""
    if hasattr(value, "getbands"):  # a PIL image
        return np.moveaxis(np.asarray(value.convert("RGB")), 2, 0)
    if hasattr(value, "detach"):  # a tensor of PyTorch
        value = value.detach().cpu()
        value = value.float() if value.is_floating_point() else value
    return value if isinstance(value, np.ndarray) else np.asarray(value)
