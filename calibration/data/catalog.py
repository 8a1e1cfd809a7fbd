"""The data sets that a spec can name: where they are on disk, and their usual normalisation. No torch."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Callable, Optional

import numpy as np

from calibration.data.file_formats import (
    class_folders,
    idx_path,
    read_cifar,
    read_folder,
    read_idx,
    read_letterboxed,
    read_npz,
    read_pickle,
)
from calibration.data.image_sources import ArrayImages, PaddedImages, Samples
from calibration.data.loaders import names_code, read_loader
from calibration.data.resizing import Size
from calibration.data.stratified_draw import draw_indices
from sparsegpt_core.errors import DataError, MissingDependencyError
from sparsegpt_core.named_inputs import InputNames

__all__ = ["DataSet", "open_set"]

_DEFAULT_ROOTS = (Path("/usr/share/datasets"), Path("data"), Path("~/data"))
_TRAINING_FOLDERS, _EVALUATION_FOLDERS = ("train", "training"), ("val", "valid", "validation", "test", "testing")
_FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class DataSet:
    """A data set before normalisation."""

    training: Samples
    """Samples to train and calibrate on."""
    evaluation: Optional[Samples] = None
    """Samples to measure on."""
    num_classes: Optional[int] = None
    """Number of classes; None if unknown."""
    class_names: Optional[tuple[str, ...]] = None
    """Names of the classes; None if unknown."""
    mean: tuple[float, ...] = (0.0,)
    """The usual mean on the scale 0..1: one value, or one for each channel."""
    std: tuple[float, ...] = (1.0,)
    """The usual standard deviation on the scale 0..1: one value, or one for each channel."""
    notes: tuple[str, ...] = ()
    """What the user should know about the images."""


def open_set(
    spec: str,
    root: Optional[Path] = None,
    image_size: Optional[int] = None,
    channels: Optional[int] = None,
    like: Optional[Sequence[int]] = None,
    inputs: Optional[InputNames] = None,
) -> DataSet:
    """Find and read the data set that ``spec`` names.

    Args:
        spec: ``digits``, ``mnist``, ``fashion-mnist``, ``cifar10``, ``cifar100``, ``imagefolder:PATH``,
            ``letterbox:PATH``, ``npz:PATH`` or ``package.module:loader``. The last imports and runs that code.
        root: The folder with the named data sets. None searches /usr/share/datasets, ./data and ~/data.
        image_size: Height and width in pixels. Images of an ``imagefolder`` are cropped to it (224 by default),
            those of a ``letterbox`` get a grey border (640 by default), those of named sets a black one.
        channels: 3 repeats the grey images of named sets.
        like: The shape (C, H, W) of a model's images. It replaces ``image_size`` and ``channels`` if the data fits.
        inputs: The network's inputs. Those of several come from ``npz:PATH``, by name, or from a loader.

    Raises:
        DataError: The spec is unknown, or the data is missing, damaged or does not fit the size or the inputs.
        MissingDependencyError: scikit-learn is not installed (``digits``).
    """
    if not spec:
        raise DataError("no data is named", f"Give `data`: {', '.join(_SPECS)}.")
    if inputs and inputs.are_several and not (spec.startswith("npz:") or names_code(spec)):
        raise DataError(
            f"the network's inputs are {', '.join(inputs.names)}, and {spec} has images only",
            "Give npz:PATH with one array for each, or package.module:loader.",
        )
    if spec in _NAMED:
        return _padded(_NAMED[spec](root), image_size, channels, like)
    kind, colon, path = spec.partition(":")
    nearest = difflib.get_close_matches(spec, _SPECS, n=1, cutoff=0.5)
    is_mistyped = kind in _NAMED or difflib.get_close_matches(kind, _WITH_PATH, cutoff=0.8)
    if names_code(spec) and path and not is_mistyped:
        return _of_shape(_loader(spec, inputs), image_size, channels)
    if kind not in _WITH_PATH or (colon and not path):
        nearest = _with_kind(spec) or nearest
        guess = f"Did you mean {nearest[0]}? " if nearest else ""
        raise DataError(f"unknown data '{spec}'", f"{guess}Known: {', '.join(_SPECS)}.")
    if not path:
        raise DataError(f"data '{spec}' needs a path", f"Write {kind}:PATH.")
    if kind == "npz":
        return _of_shape(_channels_first(_npz(Path(path).expanduser(), inputs), like), image_size, channels)
    read, usual_size = (_image_folder, 224) if kind == "imagefolder" else (_letterbox, 640)
    size = (image_size, image_size) if image_size else (like[1], like[2]) if like else (usual_size, usual_size)
    return _of_shape(read(Path(path).expanduser(), size), image_size, channels)


def _channels_first(data: DataSet, like: Optional[Sequence[int]]) -> DataSet:
    """Turn images (N, H, W, C) round where a model's images have exactly that shape with the channels first."""
    images = data.training.images
    if not (like and isinstance(images, ArrayImages)) or images.shape == tuple(like):
        return data
    turned = np.moveaxis(images.array, -1, 1)
    if turned.shape[1:] != tuple(like):
        return data
    return replace(data, training=replace(data.training, images=ArrayImages(turned)))


def _with_kind(path: str) -> list[str]:
    """Return what a path without a kind may mean."""
    found = Path(path).expanduser()
    return [f"imagefolder:{path}"] if found.is_dir() else [f"npz:{path}"] if found.suffix == ".npz" else []


def _padded(data: DataSet, size: Optional[int], channels: Optional[int], like: Optional[Sequence[int]]) -> DataSet:
    """Give a named set the requested size and channels, or those of ``like`` if its images fit."""
    own = data.training.images.shape
    if like and size is None and all(have <= want for have, want in zip(own[1:], like[1:])):
        height, width = like[1:]
    else:
        height, width = own[1:] if size is None else (size, size)
    if channels is None:
        channels = like[0] if like and own[0] == 1 else own[0]
    shape = (channels, height, width)
    if shape == own:
        return data

    def fit(samples: Samples) -> Samples:
        return replace(samples, images=PaddedImages(samples.images, shape))

    return replace(data, training=fit(data.training), evaluation=data.evaluation and fit(data.evaluation))


def _of_shape(data: DataSet, size: Optional[int], channels: Optional[int]) -> DataSet:
    """Refuse a size or channels that differ from those of the images."""
    own = data.training.images.shape
    if channels not in (None, *own[:1]) or (size is not None and (size, size) != own[1:]):
        what = f"images of shape {own}" if own else "inputs by name, which stay as they are"
        raise DataError(f"`image_size` and `channels` do not fit {what}", "Leave them out.")
    return data


def _digits(root: Optional[Path]) -> DataSet:
    """scikit-learn's copy of the UCI digits, 8 × 8. A third of each class is the evaluation split."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingDependencyError("the data 'digits' needs scikit-learn", "pip install scikit-learn") from error
    images, labels = load_digits(return_X_y=True)
    images = (images.reshape(-1, 1, 8, 8) / 16).astype(np.float32)
    held_out = np.zeros(len(labels), dtype=bool)
    held_out[draw_indices(len(labels), len(labels) // 3, seed=0, labels=labels)] = True
    return DataSet(
        training=Samples(ArrayImages(images[~held_out]), labels[~held_out]),
        evaluation=Samples(ArrayImages(images[held_out]), labels[held_out]),
        num_classes=10,
        class_names=tuple("0123456789"),
        mean=(0.3059,),
        std=(0.3766,),
    )


def _mnist(root: Optional[Path]) -> DataSet:
    folder = _find_idx("mnist", root, ("MNIST/raw", "mnist"), "Download the four files of MNIST")
    return DataSet(
        training=read_idx(folder, "train"),
        evaluation=read_idx(folder, "t10k"),
        num_classes=10,
        class_names=tuple("0123456789"),
        mean=(0.1307,),
        std=(0.3081,),
    )


def _fashion_mnist(root: Optional[Path]) -> DataSet:
    hint = "apt-get install dataset-fashion-mnist"
    folder = _find_idx("fashion-mnist", root, ("FashionMNIST/raw", "fashion-mnist"), hint)
    return DataSet(
        training=read_idx(folder, "train"),
        evaluation=read_idx(folder, "t10k"),
        num_classes=10,
        class_names=_FASHION_CLASSES,
        mean=(0.2860,),
        std=(0.3530,),
    )


def _cifar10(root: Optional[Path]) -> DataSet:
    hint = "Unpack cifar-10-python.tar.gz"
    folder = _find("cifar10", root, ("cifar-10-batches-py",), hint, lambda path: (path / "test_batch").is_file())
    return DataSet(
        training=read_cifar([folder / f"data_batch_{number}" for number in range(1, 6)], "labels"),
        evaluation=read_cifar([folder / "test_batch"], "labels"),
        num_classes=10,
        class_names=_cifar_names(folder / "batches.meta", "label_names"),
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
    )


def _cifar100(root: Optional[Path]) -> DataSet:
    hint = "Unpack cifar-100-python.tar.gz"
    folder = _find("cifar100", root, ("cifar-100-python",), hint, lambda path: (path / "test").is_file())
    return DataSet(
        training=read_cifar([folder / "train"], "fine_labels"),
        evaluation=read_cifar([folder / "test"], "fine_labels"),
        num_classes=100,
        class_names=_cifar_names(folder / "meta", "fine_label_names"),
        mean=(0.5071, 0.4865, 0.4409),
        std=(0.2673, 0.2564, 0.2762),
    )


def _cifar_names(path: Path, key: str) -> tuple[str, ...]:
    meta = read_pickle(path)
    if not isinstance(meta, dict) or not isinstance(meta.get(key), list):
        raise DataError(f"cannot read {path}: it lacks '{key}'")
    return tuple(map(str, meta[key]))


def _npz(path: Path, inputs: Optional[InputNames]) -> DataSet:
    samples = read_npz(path, inputs)
    # The file does not name its classes; the largest label gives their number.
    return DataSet(samples, num_classes=None if samples.classes is None else int(samples.classes.max()) + 1)


def _loader(spec: str, inputs: Optional[InputNames]) -> DataSet:
    samples, notes = read_loader(spec, inputs)
    classes = None if samples.classes is None else int(samples.classes.max()) + 1
    return DataSet(samples, num_classes=classes, notes=notes)


def _image_folder(folder: Path, size: Size) -> DataSet:
    """PATH/train with PATH/val, or their other names; or one folder for each class, or images without labels."""
    inside = class_folders(folder)
    if inside and set(inside) <= {*_EVALUATION_FOLDERS}:
        hint = f"Name the split: imagefolder:{folder / inside[0]}."
        raise DataError(f"{folder} contains no training images", hint)
    split = [name for name in _TRAINING_FOLDERS if name in inside]
    training = folder / split[0] if split else folder
    held_out = [name for name in _EVALUATION_FOLDERS if name in inside and split]
    names = class_folders(training)
    return DataSet(
        training=read_folder(training, names, size),
        evaluation=read_folder(folder / held_out[0], names, size) if held_out else None,
        num_classes=len(names) or None,
        class_names=tuple(names) or None,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )


def _letterbox(folder: Path, size: Size) -> DataSet:
    """Images without classes, in PATH or PATH/images: all of them, or ``train`` with ``val``, ``valid`` or ``test``."""
    folder = folder / "images" if "images" in class_folders(folder) else folder
    inside = class_folders(folder)
    if "train" not in inside:
        return DataSet(read_letterboxed(folder, size))
    held_out = [name for name in ("val", "valid", "test") if name in inside]
    return DataSet(
        training=read_letterboxed(folder / "train", size),
        evaluation=read_letterboxed(folder / held_out[0], size) if held_out else None,
    )


def _find_idx(spec: str, root: Optional[Path], folders: Sequence[str], hint: str) -> Path:
    # MNIST and Fashion-MNIST have the same file names: only an explicit root may contain them directly.
    places = (*folders, ".") if root else folders
    return _find(spec, root, places, hint, lambda path: idx_path(path, "train-images-idx3-ubyte") is not None)


def _find(spec: str, root: Optional[Path], folders: Sequence[str], hint: str, found: Callable[[Path], bool]) -> Path:
    """Return the first of the ``folders`` under the roots for which ``found`` returns True."""
    roots = (root,) if root else _DEFAULT_ROOTS
    tried = [place.expanduser() / folder for place in roots for folder in folders]
    for path in tried:
        if found(path):
            return path
    raise DataError(
        f"data '{spec}' not found in {', '.join(map(str, tried))}", f"{hint}, or give its folder as `data_root`."
    )


_NAMED = {
    "digits": _digits,
    "mnist": _mnist,
    "fashion-mnist": _fashion_mnist,
    "cifar10": _cifar10,
    "cifar100": _cifar100,
}
_WITH_PATH = ("imagefolder", "letterbox", "npz")
_SPECS = (*_NAMED, *(f"{kind}:PATH" for kind in _WITH_PATH), "package.module:loader")
