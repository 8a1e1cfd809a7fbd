"""Data sets in the formats they come in, against torchvision and scikit-learn."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import re
import shutil
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.datasets import load_digits
from torchvision import datasets

from calibration.data import EvaluationSplit, TrainingSplit, open_data
from sparsegpt_core.errors import DataError

Array = npt.NDArray[Any]
FASHION = Path("/usr/share/datasets/fashion-mnist")
RNG = np.random.default_rng(0)


def raw(split: TrainingSplit | EvaluationSplit | None) -> tuple[Array, list[int]]:
    """All images as they are stored, and their labels."""
    assert split is not None
    assert split.labels is not None
    return split.samples.images.read(np.arange(len(split))), split.labels.tolist()


def test_digits_are_split_into_the_same_stratified_thirds_every_time() -> None:
    first, second = open_data("digits"), open_data("digits")
    (training, labels), (evaluation, truth) = raw(first.training), raw(first.evaluation)
    assert (len(training), len(evaluation), first.image_shape) == (1198, 599, (1, 8, 8))
    np.testing.assert_array_equal(evaluation, raw(second.evaluation)[0])
    images, classes = load_digits(return_X_y=True)
    pairs = {(image.tobytes(), label) for image, label in zip((images / 16).astype(np.float32), classes, strict=True)}
    found = [(image.tobytes(), label) for image, label in zip(training, labels, strict=True)]
    held_out = [(image.tobytes(), label) for image, label in zip(evaluation, truth, strict=True)]
    assert set(found) | set(held_out) == pairs
    assert not set(found) & set(held_out)
    assert abs(np.bincount(truth) - np.bincount(classes) / 3).max() < 1
    # The constants are those of the training split.
    ((normalised, _),) = first.training.batches(2000)
    assert abs(normalised.mean()) < 1e-3
    assert abs(normalised.std() - 1) < 1e-3


@pytest.mark.skipif(not FASHION.is_dir(), reason="apt-get install dataset-fashion-mnist")
@pytest.mark.parametrize("root", [None, FASHION, FASHION.parent])
def test_debians_fashion_mnist(root: Path | None) -> None:
    data = open_data("fashion-mnist", root)
    images, labels = raw(data.evaluation)
    assert (len(data.training), images.shape) == (60000, (10000, 1, 28, 28))
    assert images.dtype == np.uint8
    assert np.bincount(labels).tolist() == [1000] * 10
    assert data.class_names is not None
    assert data.class_names[labels[0]] == "Ankle boot"
    pixels = raw(data.training)[0] / 255
    assert data.mean == pytest.approx([pixels.mean()], abs=1e-4)
    assert data.std == pytest.approx([pixels.std()], abs=1e-4)


def write_idx(folder: Path, name: str, array: Array, *, compress: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    content = struct.pack(">BBBB", 0, 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
    if compress:
        (folder / f"{name}.gz").write_bytes(gzip.compress(content))
    else:
        (folder / name).write_bytes(content)


def write_mnist(folder: Path, *, compress: bool = False) -> dict[str, tuple[Array, list[int]]]:
    written = {}
    for split, count in (("train", 20), ("t10k", 10)):
        images = RNG.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 10
        write_idx(folder, f"{split}-images-idx3-ubyte", images, compress=compress)
        write_idx(folder, f"{split}-labels-idx1-ubyte", labels, compress=compress)
        written[split] = (images, labels.tolist())
    return written


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize(
    ("spec", "place"), [("mnist", "MNIST/raw"), ("mnist", "."), ("fashion-mnist", "FashionMNIST/raw")]
)
def test_idx_files_are_found_and_read(tmp_path: Path, spec: str, place: str, compress: bool) -> None:
    written = write_mnist(tmp_path / place, compress=compress)
    data = open_data(spec, tmp_path)
    for split, name in ((data.training, "train"), (data.evaluation, "t10k")):
        images, labels = raw(split)
        np.testing.assert_array_equal(images[:, 0], written[name][0])
        assert labels == written[name][1]
    if place == "MNIST/raw" and not compress:
        theirs = datasets.MNIST(str(tmp_path), train=True)
        np.testing.assert_array_equal(raw(data.training)[0][:, 0], theirs.data.numpy())


def test_flat_idx_files_are_not_guessed_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mnist(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(DataError, match="not found in /usr/share/datasets/MNIST/raw"):
        open_data("mnist")


def test_default_roots_are_tried_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    write_mnist(tmp_path / "home/data/MNIST/raw")
    assert len(open_data("mnist").training) == 20


def test_missing_data_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=re.escape(f"{tmp_path}/FashionMNIST/raw, {tmp_path}/fashion-mnist, ")) as error:
        open_data("fashion-mnist", tmp_path)
    assert "apt-get install dataset-fashion-mnist" in error.value.hint
    assert "`data_root`" in error.value.hint
    for spec in ("mnist", "cifar10", "cifar100"):
        with pytest.raises(DataError, match=f"data '{spec}' not found in {tmp_path}"):
            open_data(spec, tmp_path)


def mutate(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        (folder / name).write_bytes(change((folder / name).read_bytes()))

    return apply


IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (mutate(IMAGES, lambda content: content[:-1]), "15679 bytes of data"),
        (mutate(IMAGES, lambda content: content + b"x"), "15681 bytes of data"),
        (mutate(IMAGES, lambda content: b""), "not an idx file"),
        (mutate(IMAGES, lambda content: content[:9]), "cannot read"),
        (mutate(IMAGES, lambda content: b"\0\0\x0d\3" + content[4:]), "not an idx file of bytes in 3 dimensions"),
        (mutate(IMAGES, lambda content: content[:4] + b"\xff" * 12 + content[16:]), "15680 bytes of data"),
        (mutate(LABELS, lambda content: struct.pack(">II", 0x801, 3) + b"\1\2\3"), "3 labels for 20 images"),
        (mutate(LABELS, lambda content: content[:-1] + b"\x0a"), "label 10 in data of 10 classes"),
        (mutate(IMAGES, lambda content: struct.pack(">IIII", 0x803, 0, 28, 28)), "shape (0, 1, 28, 28)"),
        (mutate(IMAGES, lambda content: struct.pack(">IIII", 0x803, 20, 1, 1) + bytes(20)), "training images are"),
        (lambda folder: (folder / LABELS).unlink(), "train-labels-idx1-ubyte is missing"),
        (lambda folder: shutil.copy(folder / "t10k-images-idx3-ubyte", folder / IMAGES), "20 labels for 10 images"),
    ],
)
def test_damaged_idx_files_are_refused(tmp_path: Path, harm: Callable[[Path], None], reason: str) -> None:
    write_mnist(tmp_path)
    harm(tmp_path)
    with pytest.raises(DataError, match=re.escape(reason)) as error:
        open_data("mnist", tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "change", [lambda content: content[:200], lambda content: content[:-40] + bytes(40), lambda content: b"no gzip"]
)
def test_damaged_gzip_files_are_refused(tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    write_mnist(tmp_path, compress=True)
    mutate(f"{IMAGES}.gz", change)(tmp_path)
    with pytest.raises(DataError, match=r"cannot read .*ubyte\.gz: \S"):
        open_data("mnist", tmp_path)


class Python2Pickler(pickle._Pickler):
    """Writes strings and arrays as the Python 2 that wrote CIFAR's files did."""

    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        if not isinstance(obj, (bytes, str)):
            super().save(obj, save_persistent_id)  # type: ignore[misc]
            return
        content = obj.encode() if isinstance(obj, str) else obj
        self.write(b"T" + struct.pack("<i", len(content)) + content)  # type: ignore[attr-defined]


def python2_pickle(content: object) -> bytes:
    stream = io.BytesIO()
    Python2Pickler(stream, protocol=2).dump(content)
    # NumPy of that time had no _core, and gave dtype() integers where it now writes booleans.
    data = stream.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
    return data.replace(b"\x89\x88\x87", b"K\x00K\x01\x87")


def write_cifar(
    folder: Path, names: list[str], label_key: str, classes: int, dump: Callable[[object], bytes]
) -> tuple[Array, list[int]]:
    folder.mkdir(parents=True, exist_ok=True)
    images = RNG.integers(0, 256, (4 * len(names), 3072), dtype=np.uint8)
    labels = [int(label) for label in RNG.integers(0, classes, 4 * len(names))]
    for number, name in enumerate(names):
        part = slice(4 * number, 4 * number + 4)
        batch = {"batch_label": name, label_key: labels[part], "data": images[part].copy(), "filenames": ["a.png"] * 4}
        (folder / name).write_bytes(dump(batch))
    return images.reshape(-1, 3, 32, 32), labels


def write_cifar10(root: Path, dump: Callable[[object], bytes] = python2_pickle) -> tuple[Array, list[int]]:
    folder = root / "cifar-10-batches-py"
    write_cifar(folder, ["test_batch"], "labels", 10, dump)
    names = [f"class {number}" for number in range(10)]
    (folder / "batches.meta").write_bytes(dump({"label_names": names, "num_vis": 3072}))
    return write_cifar(folder, [f"data_batch_{number}" for number in range(1, 6)], "labels", 10, dump)


@pytest.mark.parametrize("dump", [python2_pickle, lambda content: pickle.dumps(content, protocol=4)])
def test_cifar10_is_read(tmp_path: Path, dump: Callable[[object], bytes]) -> None:
    images, labels = write_cifar10(tmp_path, dump)
    data = open_data("cifar10", tmp_path)
    np.testing.assert_array_equal(raw(data.training)[0], images)
    assert raw(data.training)[1] == labels
    assert data.evaluation is not None
    assert len(data.evaluation) == 4
    assert data.class_names is not None
    assert (data.num_classes, data.class_names[3], data.image_shape) == (10, "class 3", (3, 32, 32))


def test_the_written_cifar_files_are_like_the_originals(tmp_path: Path) -> None:
    images, _ = write_cifar10(tmp_path)
    content = (tmp_path / "cifar-10-batches-py/data_batch_1").read_bytes()
    assert b"cnumpy.core.multiarray\n_reconstruct\n" in content
    assert b"_codecs" not in content
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy 2.4 dislikes the integers, and the old name of numpy._core
        plain = pickle.loads(content, encoding="latin1")
    np.testing.assert_array_equal(plain["data"], images[:4].reshape(4, 3072))


def test_cifar100_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-100-python"
    images, labels = write_cifar(folder, ["train"], "fine_labels", 100, python2_pickle)
    write_cifar(folder, ["test"], "fine_labels", 100, python2_pickle)
    (folder / "meta").write_bytes(python2_pickle({"fine_label_names": [f"class {n}" for n in range(100)]}))
    data = open_data("cifar100", tmp_path)
    np.testing.assert_array_equal(raw(data.training)[0], images)
    assert raw(data.training)[1] == labels
    assert data.num_classes == 100


class Malicious:
    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


@pytest.mark.parametrize("protocol", range(6))
def test_a_malicious_pickle_is_refused_and_not_run(tmp_path: Path, protocol: int) -> None:
    write_cifar10(tmp_path)
    victim = tmp_path / "victim"
    for attack in (Malicious(os.mkdir, str(victim)), Malicious(eval, f"__import__('os').mkdir('{victim}')")):
        content = pickle.dumps({"data": attack, "labels": [0]}, protocol=protocol)
        (tmp_path / "cifar-10-batches-py/test_batch").write_bytes(content)
        with pytest.raises(DataError, match="which no CIFAR file does"):
            open_data("cifar10", tmp_path)
    assert not victim.exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "Ran out of input"),
        (b"garbage", "cannot read"),
        (python2_pickle({"data": np.zeros((1, 3072), np.uint8), "labels": [0]})[:-50], "cannot read"),
        (python2_pickle([1, 2]), "cannot read"),
        (python2_pickle({"labels": [0]}), "'data'"),
        (python2_pickle({"data": np.zeros((1, 3072), np.uint8)}), "'labels'"),
        (python2_pickle({"data": np.zeros((1, 100), np.uint8), "labels": [0]}), "cannot reshape"),
        (python2_pickle({"data": np.zeros((1, 3072), np.uint8), "labels": [0, 1]}), "cannot reshape"),
        (python2_pickle({"data": np.zeros((1, 3072), np.uint8), "labels": ["cat"]}), "dtype <U3"),
        (python2_pickle({"data": np.zeros((1, 3072), np.uint8), "labels": [10]}), "label 10 in data of 10 classes"),
        (python2_pickle({"data": np.zeros((1, 3072), np.float32), "labels": [0]}), "dtype 'f4', not of bytes"),
        (python2_pickle({"data": np.array([["a"]], dtype=object), "labels": [0]}), "dtype 'O8', not of bytes"),
        (python2_pickle({"data": [[1, 2]], "labels": [0]}), "dtype int64, not uint8"),
    ],
)
def test_wrong_cifar_files_are_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    write_cifar10(tmp_path)
    (tmp_path / "cifar-10-batches-py/test_batch").write_bytes(content)
    with pytest.raises(DataError, match=re.escape(reason)) as error:
        open_data("cifar10", tmp_path)
    assert "\n" not in str(error.value)


def test_cifar_without_its_class_names_is_refused(tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    (tmp_path / "cifar-10-batches-py/batches.meta").write_bytes(python2_pickle({}))
    with pytest.raises(DataError, match="lacks 'label_names'"):
        open_data("cifar10", tmp_path)
