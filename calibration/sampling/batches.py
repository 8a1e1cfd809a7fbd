"""Calibration images, which are drawn from the training split only."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from torch import Tensor

from calibration.data import TrainingSplit, draw_indices
from sparsegpt_core.network import from_arrays

__all__ = ["calibration_batches", "held_out_batches", "held_out_indices"]

_ALL_IMAGES = slice(None)


def calibration_batches(
    split: TrainingSplit, samples: int, batch_size: int, seed: int, share: slice = _ALL_IMAGES
) -> list[Tensor]:
    """Draw calibration images without replacement; with labels, in proportion to the classes.

    Args:
        split: The training split. An evaluation split is refused.
        samples: Images to draw.
        batch_size: Images per batch; the last batch may be smaller.
        seed: The same seed draws the same images.
        share: Part of the drawn images to return.

    Returns:
        Normalised float32 batches (N, C, H, W); of inputs by name what :func:`~sparsegpt_core.prune_model` takes.

    Raises:
        TypeError: ``split`` is not a :class:`~calibration.data.TrainingSplit`.
        DataError: The split has fewer samples, or an image cannot be used.

    Example:
        >>> from calibration.data import open_data
        >>> batches = calibration_batches(open_data("digits").training, samples=48, batch_size=32, seed=0)
        >>> [tuple(batch.shape) for batch in batches]
        [(32, 1, 8, 8), (16, 1, 8, 8)]
    """
    _require_training_split(split)
    indices = draw_indices(len(split), samples, seed, split.labels)[share]
    return [from_arrays(images) for images, _ in split.batches(batch_size, indices)]


def held_out_batches(split: TrainingSplit, samples: int, count: int, batch_size: int, seed: int) -> list[Tensor]:
    """Draw training images that :func:`calibration_batches` does not draw with the same seed.

    Args:
        split: The training split. An evaluation split is refused.
        samples: Images that calibration draws.
        count: Images to draw from the others, at most.
        batch_size: Images per batch; the last batch may be smaller.
        seed: The same seed draws the same images.

    Returns:
        Normalised float32 batches (N, C, H, W); an empty list if calibration takes all images.

    Raises:
        TypeError: ``split`` is not a :class:`~calibration.data.TrainingSplit`.
        DataError: The split has fewer than ``samples`` samples, or an image cannot be used.

    Example:
        >>> from calibration.data import open_data
        >>> split = open_data("digits").training
        >>> sum(map(len, held_out_batches(split, samples=1000, count=512, batch_size=64, seed=0)))
        198
    """
    _require_training_split(split)
    indices = held_out_indices(split, samples, count, seed)
    return [from_arrays(images) for images, _ in split.batches(batch_size, indices)] if len(indices) else []


def held_out_indices(split: TrainingSplit, samples: int, count: int, seed: int) -> npt.NDArray[np.int64]:
    """Return the indices of the images that :func:`held_out_batches` draws with the same arguments.

    Example:
        >>> from calibration.data import open_data
        >>> split = open_data("digits").training
        >>> split.labels[held_out_indices(split, samples=1000, count=5, seed=0)].shape
        (5,)
    """
    others = np.setdiff1d(np.arange(len(split)), draw_indices(len(split), samples, seed, split.labels))
    labels = None if split.labels is None else split.labels[others]
    return others[draw_indices(len(others), min(count, len(others)), seed, labels)] if len(others) else others


def _require_training_split(split: TrainingSplit) -> None:
    if not isinstance(split, TrainingSplit):
        raise TypeError(f"calibration draws from a TrainingSplit, not from {type(split).__name__}")
