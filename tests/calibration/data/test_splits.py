"""Splits, normalisation, and the errors of ``open_data``."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torchvision.transforms import functional

from calibration.data import (
    EvaluationSplit,
    TrainingSplit,
    draw_indices,
    open_data,
    subset_indices,
)
from calibration.data.image_sources import ArrayImages, Samples
from calibration.sampling import calibration_batches
from sparsegpt_core.errors import DataError, InputError, MissingDependencyError

Array = npt.NDArray[Any]
IMAGES = np.random.default_rng(0).integers(0, 256, (12, 3, 8, 8), dtype=np.uint8)
LABELS = np.arange(12) % 4


def save(path: Path, **content: Any) -> str:
    np.savez(path, **content)
    return f"npz:{path}"


def split_of(count: int, labels: Array | None = None) -> TrainingSplit:
    """Images whose pixels are their index."""
    array = np.broadcast_to(np.arange(count, dtype=np.float32).reshape(-1, 1, 1, 1), (count, 1, 2, 2))
    return TrainingSplit(Samples(ArrayImages(array), labels))


channels = st.floats(0, 1, width=32)
deviations = st.floats(0.125, 4, width=32)


@settings(deadline=None, max_examples=50)
@given(
    hnp.arrays(np.uint8, (2, 3, 4, 5)),
    st.tuples(channels, channels, channels),
    st.tuples(deviations, deviations, deviations),
)
def test_uint8_is_scaled_and_normalised_as_torchvision_does(
    pixels: Array, mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    ((ours, labels),) = TrainingSplit(Samples(ArrayImages(pixels)), mean, std).batches(8)
    theirs = [
        functional.normalize(functional.to_tensor(image.transpose(1, 2, 0)), list(mean), list(std)) for image in pixels
    ]
    assert labels is None
    assert ours.dtype == np.float32
    np.testing.assert_array_equal(ours, torch.stack(theirs).numpy())


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_keep_their_scale(dtype: type) -> None:
    values: Array = np.linspace(-3, 300, 48).reshape(1, 3, 4, 4).astype(dtype)
    ((ours, _),) = TrainingSplit(Samples(ArrayImages(values))).batches(8)
    np.testing.assert_array_equal(ours, values.astype(np.float32))
    assert ours is not values


def test_batches_follow_the_indices() -> None:
    split = split_of(10, labels=np.arange(10))
    batches = list(split.batches(3, np.array([7, 1, 4, 9])))
    assert [len(pixels) for pixels, _ in batches] == [3, 1]
    assert [pixels[:, 0, 0, 0].tolist() for pixels, _ in batches] == [[7, 1, 4], [9]]
    assert [labels.tolist() for _, labels in batches if labels is not None] == [[7, 1, 4], [9]]
    assert sum(len(pixels) for pixels, _ in split.batches(4)) == len(split) == 10
    with pytest.raises(DataError, match="batch size 0"):
        next(split.batches(0))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_an_image_that_is_not_finite_is_named(value: float) -> None:
    pixels = np.zeros((5, 1, 2, 2))
    pixels[3, 0, 1, 1] = value
    split = TrainingSplit(Samples(ArrayImages(pixels)))
    with pytest.raises(DataError, match="image 3 contains NaN or infinity"):
        list(split.batches(2, np.array([0, 4, 2, 3])))


@given(st.data())
def test_draws_are_distinct_reproducible_and_proportional(data: st.DataObject) -> None:
    labels = data.draw(hnp.arrays(np.int64, st.integers(1, 60), elements=st.integers(0, 4)))
    total = len(labels)
    count = data.draw(st.integers(1, total))
    seed = data.draw(st.integers(0, 2**32 - 1))
    drawn = draw_indices(total, count, seed, labels)
    assert len(set(drawn.tolist())) == count
    assert drawn.min() >= 0
    assert drawn.max() < total
    np.testing.assert_array_equal(drawn, draw_indices(total, count, seed, labels))
    share = np.bincount(labels, minlength=5) * count / total
    assert (abs(np.bincount(labels[drawn], minlength=5) - share) < 1).all()


def test_a_draw_is_the_same_with_every_release_of_numpy() -> None:
    assert draw_indices(10, 4, seed=3).tolist() == [2, 4, 7, 3]


@pytest.mark.parametrize(("count", "seed"), [(0, 0), (-1, 0), (11, 0), (5, -1), (5, 2**32)])
def test_impossible_draws_are_refused(count: int, seed: int) -> None:
    with pytest.raises(InputError):
        draw_indices(10, count, seed)


def test_a_subset_is_sorted_and_never_larger_than_the_split() -> None:
    split = split_of(50)
    chosen = subset_indices(split, 20, seed=1)
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    assert len(chosen) == 20
    assert subset_indices(split, 20, seed=2).tolist() != chosen.tolist()
    assert subset_indices(split, None, seed=1).tolist() == subset_indices(split, 99, seed=1).tolist() == list(range(50))


def test_calibration_draws_from_the_training_split_alone() -> None:
    split = split_of(40, labels=np.arange(40) % 4)
    batches = calibration_batches(split, samples=20, batch_size=8, seed=5)
    drawn = torch.cat(batches)[:, 0, 0, 0]
    assert [len(batch) for batch in batches] == [8, 8, 4]
    assert len(set(drawn.tolist())) == 20
    assert torch.bincount(drawn.long() % 4).tolist() == [5, 5, 5, 5]
    torch.testing.assert_close(drawn, torch.cat(calibration_batches(split, 20, 8, 5))[:, 0, 0, 0])
    with pytest.raises(DataError, match="41 samples are requested, 40 exist"):
        calibration_batches(split, 41, 8, 5)


def test_calibration_refuses_an_evaluation_split() -> None:
    split = EvaluationSplit(Samples(ArrayImages(IMAGES)))
    with pytest.raises(TypeError, match="not from EvaluationSplit"):
        calibration_batches(split, 4, 4, 0)  # type: ignore[arg-type]  # the type checker refuses it too


def test_npz_is_training_data_only(tmp_path: Path) -> None:
    data = open_data(save(tmp_path / "a.npz", images=IMAGES, labels=LABELS))
    assert (data.evaluation, data.num_classes, data.class_names) == (None, 4, None)
    assert (data.image_shape, data.mean, data.std) == ((3, 8, 8), (0.0,) * 3, (1.0,) * 3)
    assert data.training.labels is not None
    assert data.training.labels.dtype == np.int64
    unlabelled = open_data(save(tmp_path / "b.npz", images=IMAGES))
    assert (unlabelled.training.labels, unlabelled.num_classes) == (None, None)


def test_evaluation_data_may_come_from_elsewhere(tmp_path: Path) -> None:
    training = save(tmp_path / "a.npz", images=IMAGES)
    evaluation = save(tmp_path / "b.npz", images=IMAGES[::-1], labels=LABELS)
    data = open_data(training, eval_data=evaluation, mean=[0.5], std=[0.5, 0.5, 0.25])
    assert data.evaluation is not None
    assert (data.training.labels, data.num_classes) == (None, 4)
    assert (data.mean, data.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.25))
    ((pixels, labels),) = data.evaluation.batches(99)
    scaled = IMAGES[::-1].astype(np.float64) / 255
    np.testing.assert_allclose(pixels, (scaled - 0.5) / np.array([0.5, 0.5, 0.25]).reshape(3, 1, 1), atol=1e-6)
    np.testing.assert_array_equal(np.asarray(labels), LABELS)
    # A named set gives its own evaluation split.
    small = save(tmp_path / "c.npz", images=np.zeros((2, 1, 8, 8)))
    digits = open_data(small, eval_data="digits")
    assert digits.evaluation is not None
    assert (len(digits.training), len(digits.evaluation), digits.num_classes) == (2, 599, 10)


def test_the_same_data_is_never_calibrated_and_evaluated_on(tmp_path: Path) -> None:
    spec = save(tmp_path / "a.npz", images=IMAGES)
    save(tmp_path / "copy.npz", images=IMAGES, labels=LABELS)
    (tmp_path / "link.npz").symlink_to(tmp_path / "a.npz")
    for name in ("a", "copy", "link"):
        with pytest.raises(DataError, match="evaluation images are the same"):
            open_data(spec, eval_data=f"npz:{tmp_path / name}.npz")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"pictures": IMAGES}, "no array 'images'"),
        ({"images": IMAGES[0]}, "shape (3, 8, 8)"),
        ({"images": IMAGES[:0]}, "shape (0, 3, 8, 8)"),
        ({"images": IMAGES.astype(np.int32)}, "dtype int32"),
        ({"images": IMAGES.astype(complex)}, "dtype complex128"),
        ({"images": np.empty((2, 1, 1, 1), dtype=object)}, "Object arrays"),
        ({"images": IMAGES, "labels": LABELS[:5]}, "5 labels for 12 images"),
        ({"images": IMAGES, "labels": LABELS.astype(float)}, "dtype float64"),
        ({"images": IMAGES, "labels": LABELS[:, None]}, "shape (12, 1)"),
        ({"images": IMAGES, "labels": LABELS - 1}, "label -1 is negative"),
        ({"images": IMAGES, "labels": np.array(["cat"] * 12)}, "dtype <U3"),
    ],
)
def test_wrong_arrays_are_refused_in_one_line(tmp_path: Path, content: dict[str, Array], reason: str) -> None:
    with pytest.raises(DataError, match=re.escape(reason)) as error:
        open_data(save(tmp_path / "wrong.npz", **content))
    assert "wrong.npz" in str(error.value)
    assert "\n" not in str(error.value)


def test_damaged_npz_files_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "good.npz", images=IMAGES)
    good = (tmp_path / "good.npz").read_bytes()
    damaged = bytearray(good)
    damaged[len(good) // 2] ^= 0xFF
    np.save(tmp_path / "array.npy", IMAGES)
    contents = [b"", b"not a zip", good[:-100], good[:300], bytes(damaged), (tmp_path / "array.npy").read_bytes()]
    for content in contents:
        (tmp_path / "bad.npz").write_bytes(content)
        with pytest.raises(DataError, match=r"cannot read .*bad\.npz: \S"):
            open_data(f"npz:{tmp_path / 'bad.npz'}")
    with pytest.raises(DataError, match="No such file"):
        open_data(f"npz:{tmp_path / 'missing.npz'}")
    with pytest.raises(DataError, match="Is a directory"):
        open_data(f"npz:{tmp_path}")


@pytest.mark.parametrize(
    ("spec", "hint"),
    [
        ("fashion_mnist", "Did you mean fashion-mnist?"),
        ("cifar-10", "Did you mean cifar10?"),
        ("Digits", "Did you mean digits?"),
        ("imagefoldr:x", "Did you mean imagefolder:PATH?"),
        ("cifar10:x", "Did you mean cifar10?"),
        ("", "Give `data`: digits, mnist"),
        ("npz:", "npz:PATH"),
        ("imagefolder", "Write imagefolder:PATH."),
    ],
)
def test_unknown_specs_get_the_nearest_right_name(spec: str, hint: str) -> None:
    with pytest.raises(DataError) as error:
        open_data(spec)
    assert hint in error.value.hint


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"mean": [0.5, 0.5]}, "mean [0.5, 0.5] does not fit images of 1 channel"),
        ({"mean": [float("nan")]}, "mean [nan]"),
        ({"mean": []}, "mean []"),
        ({"std": [0.0]}, "std 0 is too small"),
        ({"std": [-1.0]}, "std -1 is too small"),
        ({"std": [float("inf")]}, "std [inf]"),
        ({"image_size": 4}, "images of shape (1, 8, 8) cannot be padded to (1, 4, 4)"),
        ({"image_size": 0}, "images of shape (1, 8, 8) cannot be padded to (1, 0, 0)"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(DataError, match=re.escape(reason)):
        open_data("digits", **options)


def test_named_sets_are_padded_as_torchvision_does_it() -> None:
    plain, padded = open_data("digits"), open_data("digits", image_size=13, channels=3)
    assert padded.image_shape == (3, 13, 13)
    assert (padded.mean, padded.std) == (plain.mean * 3, plain.std * 3)
    for ours, theirs in ((padded.training, plain.training), (padded.evaluation, plain.evaluation)):
        assert ours is not None
        assert theirs is not None
        (images, labels), (expected, same) = next(ours.batches(5)), next(theirs.batches(5))
        black = -plain.mean[0] / plain.std[0]
        expected = functional.pad(torch.from_numpy(expected), [2, 2, 3, 3], fill=black).expand(-1, 3, -1, -1)
        np.testing.assert_allclose(images, expected, rtol=1e-6)
        np.testing.assert_array_equal(labels, same)


@pytest.mark.parametrize(
    ("like", "shape"),
    [((3, 32, 32), (3, 32, 32)), ((1, 28, 30), (1, 28, 30)), ((3, 4, 4), (3, 8, 8)), ((1, 8, 8), (1, 8, 8))],
)
def test_named_sets_adopt_the_shape_of_the_model_if_they_fit(like: tuple[int, ...], shape: tuple[int, ...]) -> None:
    assert open_data("digits", like=like).image_shape == shape
    assert open_data("digits", image_size=9, channels=2, like=like).image_shape == (2, 9, 9)


def test_other_data_cannot_be_resized(tmp_path: Path) -> None:
    spec = save(tmp_path / "a.npz", images=IMAGES)
    assert open_data(spec, image_size=8, channels=3, like=(3, 32, 32)).image_shape == (3, 8, 8)
    for options in ({"image_size": 32}, {"channels": 1}):
        with pytest.raises(DataError, match=re.escape("do not fit images of shape (3, 8, 8)")):
            open_data(spec, **options)


def test_splits_of_different_shapes_are_refused(tmp_path: Path) -> None:
    spec = save(tmp_path / "a.npz", images=IMAGES)
    with pytest.raises(DataError, match=re.escape("training images are (3, 8, 8), evaluation images (1, 8, 8)")):
        open_data(spec, eval_data="digits")


def test_data_is_read_without_torch() -> None:
    code = (
        "import sys\n"
        "from calibration.data.splits import open_data\n"
        "heavy = {'sklearn', 'PIL'} & set(sys.modules); assert not heavy, heavy\n"
        "assert len(next(open_data('digits').training.batches(4))[0]) == 4\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_missing_reader_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").touch()
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingDependencyError) as error:
        open_data("digits")
    assert error.value.hint == "pip install scikit-learn"
    with pytest.raises(MissingDependencyError) as error:
        list(open_data(f"imagefolder:{tmp_path}").training.batches(1))
    assert error.value.hint == "pip install pillow"
