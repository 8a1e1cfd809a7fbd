"""Calibration samples: drawn from the training split, and from nowhere else."""

from __future__ import annotations

import torch
from torch import Tensor

from calibration.arrays import TrainingSplit
from calibration.draw import draw

__all__ = ["calibration_batches"]

_ALL = slice(None)


def calibration_batches(
    split: TrainingSplit, samples: int, batch_size: int, seed: int, share: slice = _ALL
) -> list[Tensor]:
    """Draw calibration images without replacement, every class in proportion where labels exist.

    Args:
        split: The training split; an evaluation split is refused.
        samples: Images to draw.
        batch_size: Images per batch; the last batch may be smaller.
        seed: The same seed draws the same images.
        share: Which of the drawn images to return.

    Returns:
        Normalised float32 batches (N, C, H, W).

    Raises:
        TypeError: ``split`` is anything but a :class:`~calibration.arrays.TrainingSplit`.
        DataError: More samples are asked for than exist, or an image cannot be used.
    """
    if not isinstance(split, TrainingSplit):
        raise TypeError(f"calibration draws from a TrainingSplit, not from {type(split).__name__}")
    indices = draw(len(split), samples, seed, split.labels)[share]
    return [torch.from_numpy(images) for images, _ in split.batches(batch_size, indices)]
