"""Resizes images to squares as classifiers and detectors do. No torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["crop", "letterbox"]

_GREY = (114, 114, 114)  # the border of Ultralytics' LetterBox


def crop(image: Image, size: int) -> Image:
    """Resize the shorter side to 256/224 of ``size`` pixels, then crop the centre.

    The pixels equal those of torchvision's ``Resize`` and ``CenterCrop``.
    """
    from PIL import Image

    short = 256 * size // 224
    width, height = image.size
    scaled = (short, int(short * height / width)) if width < height else (int(short * width / height), short)
    left, top = (round((side - size) / 2) for side in scaled)
    return image.resize(scaled, Image.Resampling.BILINEAR).crop((left, top, left + size, top + size))


def letterbox(image: Image, size: int) -> Image:
    """Resize the longer side of an RGB image to ``size`` pixels, and pad the shorter one with grey on both ends.

    The pixels equal those of Ultralytics' ``LetterBox`` up to rounding: bilinear, without antialiasing.
    """
    from PIL import Image

    ratio = size / max(image.size)
    width, height = (max(1, round(side * ratio)) for side in image.size)
    scales = image.width / width, 0, 0, 0, image.height / height, 0
    resized = image.transform((width, height), Image.Transform.AFFINE, scales, Image.Resampling.BILINEAR)
    framed = Image.new("RGB", (size, size), _GREY)
    framed.paste(resized, ((size - width) // 2, (size - height) // 2))
    return framed
