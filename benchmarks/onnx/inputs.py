"""The ONNX files of others, and photos as each of them takes them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

__all__ = ["FILES", "IMAGENET", "OnnxFile", "read_inputs", "read_photos"]

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5,) * 3, (0.5,) * 3)
WORDS = ("Invoice", "Total 42.50", "EXIT", "No. 1187", "Hamburg", "Platform 9", "open 8-18 h", "SALE", "Batch B7-220")


@dataclass(frozen=True)
class OnnxFile:
    """A file in the user's folder, and what it reads and computes."""

    height: int
    width: int
    mean: tuple[float, ...] = (0.0,) * 3
    std: tuple[float, ...] = (1.0,) * 3
    classes: int | None = None
    """The axis of classes; None: the outputs are maps or boxes."""
    logits: bool = False
    """Whether the classes are logits, and not probabilities."""
    bgr: bool = False
    channels_last: bool = False
    lines: int = 0
    """Lines of text to write on each photo."""
    batch: int = 8


FILES = {
    "ppocrv5_det": OnnxFile(224, 224, *IMAGENET, lines=4),
    "ppocrv5_rec": OnnxFile(48, 320, *HALF, classes=2, lines=1),
    "ppocrv5_cls": OnnxFile(80, 160, *HALF, classes=1, lines=1),
    "open_nsfw": OnnxFile(
        224, 224, (104 / 255, 117 / 255, 123 / 255), (1 / 255,) * 3, classes=1, bgr=True, channels_last=True
    ),
    "efficientnet_lite1": OnnxFile(224, 224, (127 / 255,) * 3, (128 / 255,) * 3, classes=1, logits=True),
    "yolo11n": OnnxFile(320, 320, batch=1),
}


def read_inputs(folder: Path, name: str, split: str, count: int) -> npt.NDArray[np.float32]:
    """Return the first photos of ``calib.npz`` or ``test.npz`` as a file takes them, (N, ...)."""
    return read_photos(folder, FILES[name], split, count)


def read_photos(folder: Path, file: OnnxFile, split: str, count: int | None = None) -> npt.NDArray[np.float32]:
    """Return the first photos of a split as a network takes them, (N, ...); None for all."""
    with np.load(folder / f"{split}.npz") as archive:
        photos = archive["images"][:count]
    rng = np.random.default_rng(0 if split == "calib" else 1)
    images = np.stack([_prepared(photo, file, rng) for photo in photos]) / np.float32(255)
    if file.bgr:
        images = images[..., ::-1]
    images = (images - np.array(file.mean, np.float32)) / np.array(file.std, np.float32)
    return np.ascontiguousarray(images if file.channels_last else np.moveaxis(images, -1, 1))


def _prepared(photo: Any, file: OnnxFile, rng: np.random.Generator) -> Any:
    """Resize a photo (3, H, W) to (H, W, 3) in bytes, with lines of text on it."""
    image = Image.fromarray(np.moveaxis(photo, 0, -1)).resize((file.width, file.height), Image.Resampling.BILINEAR)
    draw, band = ImageDraw.Draw(image), file.height // max(file.lines, 1)
    font = ImageFont.load_default(0.6 * min(band, 60))
    for line in range(file.lines):
        ink = (255,) * 3 if rng.random() < 0.5 else (0,) * 3
        left, top = int(rng.integers(file.width // 4)), line * band + int(rng.integers(1 + band // 6))
        draw.text((left, top), str(rng.choice(WORDS)), fill=ink, font=font)
    return np.asarray(image, dtype=np.float32)
