"""Random crops and flips of images."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from calibration.data import names_code

__all__ = ["AUGMENTATIONS", "augmentation_for", "crop_flip", "normalised_black", "resized_crops", "with_views"]

AUGMENTATIONS = ("none", "crop", "crop-flip")
"""Names of the augmentations. Both crops shift the image; ``crop-flip`` also mirrors it."""

_MIN_PHOTO_SIZE = 64  # of the shorter side; smaller images are shifted, not resized
_MIN_CROP_AREA = 0.25


def augmentation_for(spec: str) -> str:
    """Return the augmentation that suits a data set: digits are not mirrored, images of files and loaders not changed.

    Args:
        spec: The data set, as :func:`~calibration.data.open_data` takes it.

    Example:
        >>> augmentation_for("digits"), augmentation_for("cifar10"), augmentation_for("npz:my.npz")
        ('crop', 'crop-flip', 'none')
    """
    if spec.startswith("npz:") or names_code(spec):
        return "none"
    return "crop" if spec in ("digits", "mnist") else "crop-flip"


def normalised_black(mean: Sequence[float], std: Sequence[float]) -> list[float]:
    """Return the value of a black pixel after normalisation, one for each channel.

    Args:
        mean: Mean of each channel.
        std: Standard deviation of each channel.

    Example:
        >>> normalised_black([0.5, 0.2], [0.25, 0.1])
        [-2.0, -2.0]
    """
    return [-m / s for m, s in zip(mean, std, strict=True)]


def crop_flip(images: Tensor, background: Sequence[float], flip: bool, generator: torch.Generator) -> Tensor:
    """Shift each image by up to an eighth of its size, at least one pixel, and mirror half of them.

    Args:
        images: (N, C, H, W) on the CPU.
        background: Fills the edges: one value or one for each channel.
        flip: Whether to mirror.
        generator: Source of randomness.

    Returns:
        (N, C, H, W) in channels-last memory order.

    Example:
        >>> images = torch.ones(2, 1, 8, 8)
        >>> crop_flip(images, [0.0], flip=True, generator=torch.Generator().manual_seed(0)).shape
        torch.Size([2, 1, 8, 8])
    """
    count, _, height, width = images.shape
    # Each image's rows (N, H) and columns (N, W) in the padded batch.
    rows, top = _window(count, height, generator)
    columns, left = _window(count, width, generator)
    if flip:
        mirrored = torch.rand(count, 1, generator=generator) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    # (N, C, H, W) -> (N, C, H + 2 top, W + 2 left)
    value = torch.tensor(background, dtype=images.dtype).reshape(1, -1, 1, 1)
    padded = value.expand(count, images.shape[1], height + 2 * top, width + 2 * left).clone()
    padded[:, :, top : top + height, left : left + width] = images
    # Advanced indices put the channels last: (N, H, W, C) -> (N, C, H, W)
    sample = torch.arange(count)[:, None, None]
    return padded[sample, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def resized_crops(images: Tensor, generator: torch.Generator) -> Tensor:
    """Cut a random square or nearly square window from each image, mirror half of them, and resize them to full size.

    A window has a quarter of the image's area or more, and an aspect ratio from 0.78 to 1.28 of the image's.

    Args:
        images: (N, C, H, W) on the CPU.
        generator: Source of randomness.

    Returns:
        (N, C, H, W).

    Example:
        >>> resized_crops(torch.ones(2, 3, 64, 80), torch.Generator().manual_seed(0)).shape
        torch.Size([2, 3, 64, 80])
    """
    size = images.shape[2:]
    made = []
    for image in images:
        area, ratio, down, right, mirror = torch.rand(5, generator=generator).tolist()
        share = (_MIN_CROP_AREA + (1 - _MIN_CROP_AREA) * area) ** 0.5
        stretch = math.exp((ratio - 0.5) / 4)
        height, width = (min(full, round(full * share * by)) for full, by in zip(size, (stretch, 1 / stretch)))
        top, left = (round(place * (full - cut)) for place, full, cut in zip((down, right), size, (height, width)))
        window = image[None, :, top : top + height, left : left + width]
        window = F.interpolate(window, tuple(size), mode="bilinear", antialias=True)
        made.append(window.flip(3) if mirror < 0.5 else window)
    return torch.cat(made)


def with_views(
    batches: Sequence[Tensor], views: int, background: Sequence[float], flip: bool, seed: int, first: int = 0
) -> list[Tensor]:
    """Insert after each image some views of it: :func:`resized_crops` of photos, else what :func:`crop_flip` makes.

    Photos have sides of 64 pixels or more, and may be mirrored.

    Args:
        batches: Images (N, C, H, W) on the CPU.
        views: Views of each image.
        background: Fills the edges: one value or one for each channel.
        flip: Whether to mirror.
        seed: The views depend on this seed and the image's number only, not on its batch or process.
        first: The number of the first image.

    Returns:
        (1 + views) times as many batches, each with as many images as before.

    Example:
        >>> with_views([torch.ones(2, 1, 8, 8)], views=3, background=[0.0], flip=False, seed=0)[0].shape
        torch.Size([2, 1, 8, 8])
        >>> len(with_views([torch.ones(2, 1, 8, 8)], views=3, background=[0.0], flip=False, seed=0))
        4
    """
    result: list[Tensor] = []
    for batch in batches:
        groups = []
        for number, image in enumerate(batch, first):
            generator = torch.Generator().manual_seed(int(np.random.SeedSequence((seed, number)).generate_state(1)[0]))
            copies = image.expand(views, -1, -1, -1)
            is_photo = flip and min(image.shape[1:]) >= _MIN_PHOTO_SIZE
            made = resized_crops(copies, generator) if is_photo else crop_flip(copies, background, flip, generator)
            groups += [image[None], made]
        result += torch.cat(groups).chunk(1 + views)
        first += len(batch)
    return result


def _window(count: int, size: int, generator: torch.Generator) -> tuple[Tensor, int]:
    """Random windows (N, size) into an axis that is padded on both sides, and the padding on one side."""
    padding = max(1, size // 8)
    start = torch.randint(2 * padding + 1, (count, 1), generator=generator)
    return start + torch.arange(size), padding
