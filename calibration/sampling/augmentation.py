"""Random crops and flips of a whole batch at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

__all__ = ["AUGMENTATIONS", "augmentation_for", "crop_flip", "normalised_black", "with_views"]

AUGMENTATIONS = ("none", "crop", "crop-flip")


def augmentation_for(spec: str) -> str:
    """Return what suits a data spec: digits must not be mirrored, and of ``npz:`` nothing is known."""
    if spec.startswith("npz:"):
        return "none"
    return "crop" if spec in ("digits", "mnist") else "crop-flip"


def normalised_black(mean: Sequence[float], std: Sequence[float]) -> list[float]:
    """Return what a black pixel is, once normalised: one value for each channel."""
    return [-m / s for m, s in zip(mean, std, strict=True)]


def crop_flip(images: Tensor, background: Sequence[float], flip: bool, generator: torch.Generator) -> Tensor:
    """Shift each image by up to an eighth of its size, at least one pixel, and mirror half of them.

    Args:
        images: (N, C, H, W) on the CPU.
        background: What shows at the edges: one value or one for each channel.
        flip: Whether to mirror.
        generator: Source of randomness.

    Returns:
        (N, C, H, W) in channels-last memory order.
    """
    count, _, height, width = images.shape
    rows, top = _window(count, height, generator)
    columns, left = _window(count, width, generator)
    if flip:
        mirrored = torch.rand(count, 1, generator=generator) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    value = torch.tensor(background, dtype=images.dtype).reshape(1, -1, 1, 1)
    padded = value.expand(count, images.shape[1], height + 2 * top, width + 2 * left).clone()
    padded[:, :, top : top + height, left : left + width] = images
    sample = torch.arange(count)[:, None, None]
    return padded[sample, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def with_views(
    batches: Sequence[Tensor], views: int, background: Sequence[float], flip: bool, seed: int, first: int = 0
) -> list[Tensor]:
    """Put behind each image some that :func:`crop_flip` makes of it.

    Args:
        batches: Images (N, C, H, W) on the CPU.
        views: How many of each image.
        background: What shows at the edges: one value or one for each channel.
        flip: Whether to mirror.
        seed: With an image's number the source of its views, whatever batch or process it is in.
        first: The number of the first image.

    Returns:
        As many images a batch as before, in (1 + views) times as many batches.
    """
    found: list[Tensor] = []
    for batch in batches:
        groups = []
        for number, image in enumerate(batch, first):
            generator = torch.Generator().manual_seed(int(np.random.SeedSequence((seed, number)).generate_state(1)[0]))
            groups += [image[None], crop_flip(image.expand(views, -1, -1, -1), background, flip, generator)]
        found += torch.cat(groups).chunk(1 + views)
        first += len(batch)
    return found


def _window(count: int, size: int, generator: torch.Generator) -> tuple[Tensor, int]:
    """Random windows (N, size) into an axis that is padded on both sides, and the padding."""
    padding = max(1, size // 8)
    start = torch.randint(2 * padding + 1, (count, 1), generator=generator)
    return start + torch.arange(size), padding
