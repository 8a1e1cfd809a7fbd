"""Reads the images, or all inputs, of a user's loader. It runs that code. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Optional

import numpy as np
import numpy.typing as npt

from calibration.data.image_sources import ArrayImages, Samples
from sparsegpt_core.errors import DataError, SparseGPTError, first_line
from sparsegpt_core.named_inputs import InputNames, NamedInputs
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


def read_loader(spec: str, inputs: Optional[InputNames] = None) -> tuple[Samples, tuple[str, ...]]:
    """Import a loader and read its images.

    A loader is an iterable, such as a ``DataLoader`` or a ``Dataset``, or a function without arguments that returns
    one. It gives images (C, H, W) or batches of them (N, C, H, W), alone, as (images, labels), or in dicts. For a
    network with several inputs it gives dicts, or tuples of the inputs that labels may follow: a ``Dataset`` gives
    samples, all others batches.

    Args:
        spec: ``package.module:loader`` or ``path/to/FILE.py:loader``.
        inputs: The network's inputs; None, or a single one, for images.

    Returns:
        The images and classes; and notes: the loader's labels are no classes, or it has more images than are kept in
        memory.

    Raises:
        InputError: The loader cannot be imported.
        DataError: It fails, or gives something that is no image.
    """
    parts: list[dict[str, Array]] = []
    labels: Optional[list[Array]] = []
    notes: list[str] = []
    count, size = 0, 0
    try:
        loader = _called(import_object(spec))
        for item in _shuffled(loader) if _is_dataset(loader) else loader:
            if inputs and inputs.are_several:
                own, label = _inputs_and_label(item, inputs, spec, _is_dataset(loader))
            else:
                image, label = _images_and_label(item, spec)
                own = {"images": image}
            _check_same(parts[:1], own, spec)
            parts.append(own)
            samples = len(next(iter(own.values())))
            classes = _classes(label, samples)
            if label is not None and classes is None and not notes:
                notes.append(f"{spec}'s labels are not used: they are not one class number for each image")
            labels = None if labels is None or classes is None else [*labels, classes]
            count, size = count + samples, size + sum(values.nbytes for values in own.values())
            if size >= _MAX_BYTES or count >= _MAX_IMAGES:
                notes.append(f"{spec} gives more images than are kept in memory: its first {count} are used")
                break
    except SparseGPTError:
        raise
    except (Exception, SystemExit) as error:  # a user's code may raise anything
        raise DataError(f"{spec} failed: {type(error).__name__}: {first_line(error)}") from error
    if not parts:
        raise DataError(f"{spec} gives no images")
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    images = NamedInputs(joined) if inputs and inputs.are_several else ArrayImages(joined["images"])
    return Samples(images, None if labels is None else np.concatenate(labels)), tuple(notes)


def _called(loader: Any) -> Any:
    """Return what a function or a class makes, or the loader itself."""
    is_iterable = hasattr(loader, "__getitem__") or hasattr(loader, "__iter__")
    return _called(loader()) if isinstance(loader, type) or (callable(loader) and not is_iterable) else loader


def _is_dataset(loader: Any) -> bool:
    return all(hasattr(loader, name) for name in ("__getitem__", "__len__")) and not hasattr(loader, "__iter__")


def _shuffled(dataset: Any) -> Iterator[Any]:
    """Read a ``Dataset`` in random order: its first images are then of all classes."""
    for index in np.random.RandomState(0).permutation(len(dataset)):
        yield dataset[int(index)]


def _images_and_label(item: Any, spec: str) -> tuple[Array, Any]:
    """Return the images (N, C, H, W) of an item, and what it gives as their labels; None for none."""
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
    return images, label


def _inputs_and_label(item: Any, inputs: InputNames, spec: str, is_sample: bool) -> tuple[dict[str, Array], Any]:
    """Return the inputs (N, ...) of an item by name, and what it gives as their labels; None for none."""
    given, label = item, None
    if isinstance(item, (tuple, list)) and len(item) == 2 and _holds_arrays(item[0]):
        given, label = item
    elif isinstance(item, (tuple, list)) and len(item) == inputs.required + 1:
        given, label = item[:-1], item[-1]
    if isinstance(given, Mapping):
        label = next((given[key] for key in _LABEL_KEYS if key in given and key not in inputs.names), label)
        given = {name: given[name] for name in inputs.choose(given)}
    elif isinstance(given, (tuple, list)) and len(given) == inputs.required:
        given = dict(zip(inputs.names, given))
    else:
        count = len(given) if isinstance(given, (tuple, list)) else 1
        raise DataError(
            f"{spec} gives {count} array{'s' if count > 1 else ''}, the network's inputs are {', '.join(inputs.names)}",
            "Give dicts, or tuples of the inputs, with or without labels after them.",
        )
    found = NamedInputs({name: _array(value)[None] if is_sample else _array(value) for name, value in given.items()})
    return found.arrays, label


def _holds_arrays(value: Any) -> bool:
    return isinstance(value, Mapping) or (
        isinstance(value, (tuple, list)) and all(hasattr(each, "shape") for each in value)
    )


def _classes(label: Any, count: int) -> Optional[Array]:
    """Return the classes of ``count`` images; None if the labels are no class numbers."""
    labels = _array(label).reshape(-1)
    return labels if labels.dtype.kind in "iu" and len(labels) == count else None


def _check_same(first: Sequence[Mapping[str, Array]], own: Mapping[str, Array], spec: str) -> None:
    """Raise DataError if arrays differ from those of the first item in their names or shapes."""
    for before in first:
        if before.keys() != own.keys():
            raise DataError(f"{spec} gives {', '.join(before)} and then {', '.join(own)}", "Give the same inputs.")
        for name, values in own.items():
            if values.shape[1:] != before[name].shape[1:]:
                shapes = f"{before[name].shape[1:]} and {values.shape[1:]}"
                raise DataError(f"{spec} gives {name} of shapes {shapes}", "Give one shape.")


def _array(value: Any) -> Array:
    """Return a tensor, a PIL image, an array or nested lists as an array; one of objects for anything else."""
    if hasattr(value, "getbands"):  # a PIL image
        return np.moveaxis(np.asarray(value.convert("RGB")), 2, 0)
    if hasattr(value, "detach"):  # a tensor of PyTorch
        value = value.detach().cpu()
        value = value.float() if value.is_floating_point() else value
    return value if isinstance(value, np.ndarray) else np.asarray(value)
