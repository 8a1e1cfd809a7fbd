"""Letterboxed images: whole images with a grey border, as YOLO detectors see them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from calibration.data import open_data
from calibration.data.resizing import letterbox
from sparsegpt_core.errors import DataError

GREY = 114
RNG = np.random.default_rng(0)


def write(path: Path, width: int = 60, height: int = 40) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
    return path


@pytest.mark.parametrize(("width", "height"), [(100, 60), (37, 80), (20, 15), (64, 64), (640, 3), (63, 64)])
def test_the_whole_image_is_in_the_middle_of_a_grey_square(width: int, height: int) -> None:
    pixels = RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)
    framed = np.asarray(letterbox(Image.fromarray(pixels), (64, 64))).astype(float)
    new_width, new_height = (max(1, round(side * 64 / max(width, height))) for side in (width, height))
    left, top = (64 - new_width) // 2, (64 - new_height) // 2
    # OpenCV's INTER_LINEAR, which Ultralytics uses, is PyTorch's bilinear without antialiasing.
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    expected = functional.interpolate(tensor, (new_height, new_width), mode="bilinear")[0].permute(1, 2, 0).numpy()
    inside = framed[top : top + new_height, left : left + new_width]
    np.testing.assert_allclose(inside, expected, atol=1.001)  # Pillow cuts off decimals
    border = np.ones((64, 64), dtype=bool)
    border[top : top + new_height, left : left + new_width] = False
    assert (framed[border] == GREY).all()


@pytest.mark.parametrize(
    ("training", "held_out"),
    [
        ("train/a.png", "val/b.png"),
        ("images/train/a.png", "images/test/b.png"),  # Ultralytics' layout
        ("train/images/a.png", "valid/images/b.png"),  # Roboflow's layout
    ],
)
def test_layouts_of_detection_data(training: str, held_out: str, tmp_path: Path) -> None:
    write(tmp_path / training)
    write(tmp_path / held_out)
    for label in ("labels/train/a.txt", "train/labels/a.txt"):
        (tmp_path / label).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / label).write_text("0 0.5 0.5 0.1 0.1")
    data = open_data(f"letterbox:{tmp_path}", image_size=32)
    assert data.evaluation is not None
    assert (len(data.training), len(data.evaluation), data.image_shape) == (1, 1, (3, 32, 32))
    assert (data.training.labels, data.num_classes, data.mean, data.std) == (None, None, (0, 0, 0), (1, 1, 1))
    ((images, _),) = data.training.batches(1)
    assert images[0, :, 0, 0] == pytest.approx([GREY / 255] * 3)


def test_the_size_is_the_model_s_or_that_of_yolo(tmp_path: Path) -> None:
    write(tmp_path / "a.png")
    assert open_data(f"letterbox:{tmp_path}").image_shape == (3, 640, 640)
    assert open_data(f"letterbox:{tmp_path}", like=(3, 320, 320)).image_shape == (3, 320, 320)


def test_both_splits_are_prepared_alike(tmp_path: Path) -> None:
    write(tmp_path / "train/a.png")
    write(tmp_path / "other/b.png")
    with pytest.raises(DataError, match="only one of the two splits is letterboxed"):
        open_data(f"letterbox:{tmp_path / 'train'}", eval_data=f"imagefolder:{tmp_path / 'other'}", image_size=32)
