"""Folders of images, against torchvision."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets, transforms
from torchvision.transforms import functional

from calibration.data import open_data
from sparsegpt_core.errors import DataError

RNG = np.random.default_rng(0)


def write_images(folder: Path, names: list[str]) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        height, width = RNG.integers(30, 90, 2)
        Image.fromarray(RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)


def write_tree(root: Path) -> None:
    write_images(root / "train", ["cat/b.png", "cat/a.JPG", "dog/deep/c.bmp", "eel/d.png"])
    write_images(root / "val", ["cat/x.png", "eel/y.webp"])


def test_an_image_folder_is_what_torchvision_sees(tmp_path: Path) -> None:
    write_tree(tmp_path)
    (tmp_path / "train/cat/notes.txt").write_text("no image")
    (tmp_path / "val/.cache").mkdir()
    data = open_data(f"imagefolder:{tmp_path}", image_size=28)
    transform = transforms.Compose([transforms.Resize(32), transforms.CenterCrop(28), transforms.ToTensor()])
    theirs = datasets.ImageFolder(str(tmp_path / "train"), transform)
    ((normalised, labels),) = data.training.batches(99)
    assert list(data.class_names or ()) == theirs.classes
    for index, (image, label) in enumerate(theirs):
        expected = functional.normalize(image, list(data.mean), list(data.std))
        np.testing.assert_array_equal(normalised[index], expected.numpy())
        assert labels is not None
        assert labels[index] == label
    # Classes that the evaluation split lacks keep their numbers.
    assert data.evaluation is not None
    assert data.evaluation.labels is not None
    assert data.evaluation.labels.tolist() == [0, 2]
    assert (data.image_shape, data.num_classes, data.mean) == ((3, 28, 28), 3, (0.485, 0.456, 0.406))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "I;16", "1", "LA"])
def test_images_of_any_mode_become_rgb(tmp_path: Path, mode: str) -> None:
    suffix = "tif" if mode == "CMYK" else "png"
    source = Image.new("L", (40, 50), 77)
    (source if mode == "I;16" else source.convert("1" if mode == "1" else "RGB")).convert(mode).save(
        tmp_path / f"a.{suffix}"
    )
    data = open_data(f"imagefolder:{tmp_path}", image_size=16)
    assert (data.training.labels, data.num_classes, data.evaluation) == (None, None, None)
    ((pixels, _),) = data.training.batches(1)
    assert pixels.shape == (1, 3, 16, 16)


def test_image_folder_layouts(tmp_path: Path) -> None:
    write_tree(tmp_path)
    only_classes = open_data(f"imagefolder:{tmp_path / 'train'}", image_size=8)
    assert (only_classes.evaluation, only_classes.num_classes) == (None, 3)
    (tmp_path / "val").rename(tmp_path / "test")
    assert len(open_data(f"imagefolder:{tmp_path}", image_size=8).evaluation or ()) == 2
    flat = f"imagefolder:{tmp_path / 'test/cat'}"
    assert open_data(f"imagefolder:{tmp_path}", eval_data=flat, image_size=8).num_classes == 3
    default = open_data(f"imagefolder:{tmp_path}")
    assert default.image_shape == (3, 224, 224)


def test_image_folders_that_share_a_file_are_refused(tmp_path: Path) -> None:
    write_tree(tmp_path)
    spec = f"imagefolder:{tmp_path}"
    (tmp_path / "other").mkdir()
    (tmp_path / "other/link.png").symlink_to(tmp_path / "train/cat/b.png")
    for shared in (tmp_path / "train", tmp_path / "train/cat", tmp_path / "other"):
        with pytest.raises(DataError, match="evaluation images are the same"):
            open_data(spec, eval_data=f"imagefolder:{shared}")


def test_wrong_image_folders_are_refused(tmp_path: Path) -> None:
    write_tree(tmp_path)
    (tmp_path / "empty").mkdir()
    write_images(tmp_path / "more", ["cat/a.png", "yak/b.png"])
    write_images(tmp_path / "only/val", ["cat/a.png"])
    spec = f"imagefolder:{tmp_path}"
    for path, reason in [("missing", "No such file"), ("empty", "there are no images"), ("only", "no training images")]:
        with pytest.raises(DataError, match=reason):
            open_data(f"{spec}/{path}")
    with pytest.raises(DataError, match="other classes"):
        open_data(spec, eval_data=f"{spec}/more")
    write_images(tmp_path / "val", ["yak/b.png"])
    with pytest.raises(DataError, match="folder 'yak' is not one of the classes"):
        open_data(spec)


@pytest.mark.parametrize("change", [lambda content: content[: len(content) // 2], lambda content: b"", lambda _: b"x"])
def test_damaged_images_are_named(tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    write_images(tmp_path, ["a.png", "b.png"])
    (tmp_path / "b.png").write_bytes(change((tmp_path / "b.png").read_bytes()))
    data = open_data(f"imagefolder:{tmp_path}", image_size=8)
    with pytest.raises(DataError, match=r"cannot read .*b\.png") as error:
        list(data.training.batches(2))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("training", ["train", "training"])
@pytest.mark.parametrize("evaluation", ["val", "valid", "validation", "test", "testing"])
def test_splits_have_the_names_that_other_tools_give_them(tmp_path, training, evaluation):
    write_images(tmp_path / training, ["cat/a.png", "cat/b.png", "dog/c.png"])
    write_images(tmp_path / evaluation, ["cat/d.png", "dog/e.png"])
    data = open_data(f"imagefolder:{tmp_path}", image_size=16)
    assert (len(data.training), len(data.evaluation), data.class_names) == (3, 2, ("cat", "dog"))


def test_an_evaluation_folder_alone_is_named(tmp_path):
    write_images(tmp_path / "valid", ["cat/a.png"])
    with pytest.raises(DataError, match="contains no training images") as error:
        open_data(f"imagefolder:{tmp_path}", image_size=16)
    assert error.value.hint == f"Name the split: imagefolder:{tmp_path}/valid."
