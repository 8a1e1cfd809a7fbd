"""Readers of data set files: idx (MNIST), CIFAR's pickles, npz, folders of images. No torch."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import math
import os
import pickle
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Callable, Optional

import numpy as np
import numpy.typing as npt

from calibration.data.image_sources import ArrayImages, FileImages, Samples
from calibration.data.resizing import Size
from sparsegpt_core.errors import DataError
from sparsegpt_core.named_inputs import InputNames, NamedInputs

__all__ = [
    "class_folders",
    "idx_path",
    "read_cifar",
    "read_folder",
    "read_idx",
    "read_letterboxed",
    "read_npz",
    "read_pickle",
]

_IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")


def idx_path(folder: Path, name: str) -> Optional[Path]:
    """Return ``folder/name`` or else ``folder/name.gz``; None if neither exists."""
    candidates = (folder / name, folder / f"{name}.gz")
    return next((path for path in candidates if path.is_file()), None)


def read_idx(folder: Path, name: str) -> Samples:
    """Read ``name``-images-idx3-ubyte and ``name``-labels-idx1-ubyte, gzipped or not, as (N, 1, H, W).

    Raises:
        DataError: A file is missing, truncated or in another format.
    """
    images = _idx_array(folder, f"{name}-images-idx3-ubyte", 3)
    labels = _idx_array(folder, f"{name}-labels-idx1-ubyte", 1)
    with _reading(folder):
        return Samples(ArrayImages(images[:, None]), labels.astype(np.int64))


def read_npz(path: Path, inputs: Optional[InputNames] = None) -> Samples:
    """Read the array ``images`` (N, C, H, W) and, if it exists, ``labels``: classes (N,) or numbers (N, ...).

    Args:
        path: The file.
        inputs: The network's inputs. An array of its name is read for each of several ones, and for a single one if
            there are no ``images``.

    Raises:
        DataError: The file is missing, damaged, pickled, or its arrays have the wrong shape or type.
    """
    with _reading(path), path.open("rb") as file:
        file.peek(1)  # raises read errors that is_zipfile hides
        if not zipfile.is_zipfile(file):
            raise DataError("it is not an npz file, or is truncated", "Write numpy.savez(path, images=...).")
        file.seek(0)
        arrays = np.load(file, allow_pickle=False)
        if inputs and inputs.come_by_name(arrays):
            names = inputs.choose(arrays)
            labels = None if "labels" in names else arrays.get("labels")
            return Samples(NamedInputs({name: arrays[name] for name in names}), labels)
        if "images" not in arrays:
            raise DataError(f"it has no array 'images', only {sorted(arrays)}", "Write numpy.savez(path, images=...).")
        return Samples(ArrayImages(arrays["images"]), arrays.get("labels"))


def read_cifar(paths: Sequence[Path], label_key: str) -> Samples:
    """Read CIFAR's batches ("python version") as one set of (N, 3, 32, 32).

    Raises:
        DataError: A file is missing, damaged, lacks a key, or contains anything except plain arrays.
    """
    images: list[npt.NDArray[Any]] = []
    labels: list[int] = []
    for path in paths:
        batch = read_pickle(path)
        with _reading(path):
            data = np.asarray(batch["data"])
            if data.dtype != np.uint8:
                raise DataError(f"images have dtype {data.dtype}, not uint8")
            images.append(data.reshape(len(batch[label_key]), 3, 32, 32))
            labels.extend(batch[label_key])
    with _reading(paths[0].parent):
        return Samples(ArrayImages(np.concatenate(images)), np.asarray(labels))


def read_pickle(path: Path) -> Any:
    """Unpickle a CIFAR file. Only dicts, lists, strings, numbers and byte arrays are allowed, so that no code can run.

    Raises:
        DataError: The file is missing, damaged, or contains anything else.
    """
    with _reading(path), path.open("rb") as file:
        return _CifarUnpickler(file, encoding="latin1").load()


def class_folders(folder: Path) -> list[str]:
    """Return the sorted names of the folders in ``folder``, without hidden ones.

    Raises:
        DataError: ``folder`` is not a readable folder.
    """
    with _reading(folder):
        return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def read_folder(folder: Path, classes: Sequence[str], size: Size) -> Samples:
    """Find the images below ``folder``: one folder for each class, or unlabelled images if ``classes`` is empty.

    Args:
        folder: Folder to search. A folder in it that is not in ``classes`` is an error.
        classes: The class names in the order of their numbers; may be empty.
        size: Height and width of the images after resizing, in pixels.

    Raises:
        DataError: There are no images, or a folder is not one of the classes.
    """
    unknown = sorted(set(class_folders(folder)) - set(classes))
    if unknown:
        raise DataError(
            f"{folder}: folder '{unknown[0]}' is not one of the classes", "Give both splits the same folder names."
        )
    files = [_image_files(folder / name) for name in classes] or [_image_files(folder)]
    labels = np.repeat(np.arange(len(files)), [len(found) for found in files])
    with _reading(folder):
        return Samples(FileImages(list(itertools.chain(*files)), size), labels if classes else None)


def read_letterboxed(folder: Path, size: Size) -> Samples:
    """Find the images in ``folder`` and below, without classes; they are letterboxed.

    Raises:
        DataError: There are no images.
    """
    with _reading(folder):
        return Samples(FileImages(_image_files(folder), size, letterbox=True))


def _image_files(folder: Path) -> list[str]:
    """The image files in ``folder`` and below, sorted. Links are followed."""
    found = []
    with _reading(folder):
        for parent, folders, names in os.walk(folder, onerror=_refuse, followlinks=True):
            found += [os.path.join(parent, name) for name in names if name.lower().endswith(_IMAGE_SUFFIXES)]  # noqa: PTH118
            for name in folders:
                _check_link(Path(parent, name))
    return sorted(found)


def _refuse(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):  # a class may be missing from a split
        raise error


def _check_link(folder: Path) -> None:
    """Refuse a link to one of its parent folders: the search would not end."""
    if folder.is_symlink() and os.path.realpath(folder) in {os.path.realpath(each) for each in folder.parents}:
        raise DataError(f"{folder} links to its own parent folder", "Remove the link.")


def _idx_array(folder: Path, name: str, dimensions: int) -> npt.NDArray[np.uint8]:
    """Read one idx file of bytes: 0, 0, type 8, the number of dimensions, the dimensions, the data."""
    path = idx_path(folder, name)
    if path is None:
        raise DataError(f"{folder / name} is missing", "It may be gzipped (.gz).")
    with _reading(path):
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        if content[:4] != bytes((0, 0, 8, dimensions)):
            raise DataError(f"it is not an idx file of bytes in {dimensions} dimensions")
        start = 4 + 4 * dimensions
        shape = [int(size) for size in np.frombuffer(content[4:start], dtype=">u4")]
        if len(content) - start != math.prod(shape):
            raise DataError(f"it has {len(content) - start} bytes of data, but shape {shape} needs {math.prod(shape)}")
        return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)


class _CifarUnpickler(pickle.Unpickler):
    """An unpickler that allows byte arrays and no other class or function."""

    def __init__(self, file: BinaryIO, encoding: str) -> None:
        super().__init__(file, encoding=encoding)

    def find_class(self, module: str, name: str) -> Any:
        """Return the functions that rebuild an array of bytes; refuse all others."""
        if (module, name) == ("numpy", "ndarray"):
            return np.ndarray
        if (module, name) == ("numpy", "dtype"):
            return _byte_dtype()
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return np.empty(0).__reduce__()[0]
        raise DataError(f"it contains {module}.{name}, which no CIFAR file does", "Do not trust this file.")


def _byte_dtype() -> Callable[..., np.dtype[Any]]:
    """A new function for each call, so that a pickle cannot change the function of the next one."""

    def dtype(code: str, align: int = 0, copy: int = 0) -> np.dtype[Any]:
        if code != "u1":
            raise DataError(f"it contains an array of dtype '{code}', not of bytes")
        # NumPy 2.4 deprecates integers in place of booleans, which these files contain.
        return np.dtype(code, align=bool(align), copy=bool(copy))

    return dtype


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn any exception of a reader into one line that names the file."""
    try:
        yield
    except Exception as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        if isinstance(error, KeyError):
            reason = f"it lacks {reason}"
        text = (reason or type(error).__name__).splitlines()[0]
        raise DataError(f"cannot read {path}: {text}", getattr(error, "hint", "")) from error
