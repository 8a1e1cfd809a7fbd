"""Resizes images as classifiers and detectors do. No torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Size", "crop", "letterbox"]

_GREY = (114, 114, 114)  # the border of Ultralytics' LetterBox


Size = tuple[int, int]
"""Height and width in pixels."""


def crop(image: Image, size: Size) -> Image:
    """Resize until both sides are at least 256/224 of ``size``, then crop the centre.

    The pixels of squares equal those of torchvision's ``Resize`` and ``CenterCrop``.
    """
    from PIL import Image

    wanted_height, wanted_width = (256 * side // 224 for side in size)
    width, height = image.size
    if width * wanted_height < height * wanted_width:
        scaled = (wanted_width, int(wanted_width * height / width))
    else:
        scaled = (int(wanted_height * width / height), wanted_height)
    left, top = (round((have - want) / 2) for have, want in zip(scaled, size[::-1]))
    return image.resize(scaled, Image.Resampling.BILINEAR).crop((left, top, left + size[1], top + size[0]))


def letterbox(image: Image, size: Size) -> Image:
    """Resize an RGB image until it fits into ``size``, and pad its shorter side with grey on both ends.

    The pixels equal those of Ultralytics' ``LetterBox`` up to rounding: bilinear, without antialiasing.
    """
    from PIL import Image

    ratio = min(size[0] / image.height, size[1] / image.width)
    width, height = (max(1, round(side * ratio)) for side in image.size)
    scales = image.width / width, 0, 0, 0, image.height / height, 0
    resized = image.transform((width, height), Image.Transform.AFFINE, scales, Image.Resampling.BILINEAR)
    framed = Image.new("RGB", size[::-1], _GREY)
    framed.paste(resized, ((size[1] - width) // 2, (size[0] - height) // 2))
    return framed
