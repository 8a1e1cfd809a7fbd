"""Calibration samples: drawn from the training split, and from nowhere else."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from calibration.data import TrainingSplit, draw_indices

__all__ = ["calibration_batches", "held_out_batches"]

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
        TypeError: ``split`` is anything but a :class:`~calibration.data.TrainingSplit`.
        DataError: More samples are asked for than exist, or an image cannot be used.
    """
    _check(split)
    indices = draw_indices(len(split), samples, seed, split.labels)[share]
    return [torch.from_numpy(images) for images, _ in split.batches(batch_size, indices)]


def held_out_batches(split: TrainingSplit, samples: int, count: int, batch_size: int, seed: int) -> list[Tensor]:
    """Draw training images that :func:`calibration_batches` does not draw with the same seed, to judge by.

    Args:
        split: The training split; an evaluation split is refused.
        samples: How many images calibration draws.
        count: How many to draw of the others, at most.
        batch_size: Images per batch; the last batch may be smaller.
        seed: The same seed draws the same images.

    Returns:
        Normalised float32 batches (N, C, H, W); none where calibration takes all images.

    Raises:
        TypeError: ``split`` is anything but a :class:`~calibration.data.TrainingSplit`.
        DataError: More samples are asked for than exist, or an image cannot be used.
    """
    _check(split)
    others = np.setdiff1d(np.arange(len(split)), draw_indices(len(split), samples, seed, split.labels))
    if not len(others):
        return []
    labels = None if split.labels is None else split.labels[others]
    indices = others[draw_indices(len(others), min(count, len(others)), seed, labels)]
    return [torch.from_numpy(images) for images, _ in split.batches(batch_size, indices)]


def _check(split: TrainingSplit) -> None:
    if not isinstance(split, TrainingSplit):
        raise TypeError(f"calibration draws from a TrainingSplit, not from {type(split).__name__}")
