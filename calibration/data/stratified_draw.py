"""Draws sample indices: seeded, without replacement, in proportion to the classes. NumPy only."""

from __future__ import annotations

from typing import Any, Optional

import numpy as np
import numpy.typing as npt

from sparsegpt_core.errors import DataError, InputError

__all__ = ["Indices", "Labels", "draw_indices"]

Indices = npt.NDArray[np.int64]
Labels = npt.NDArray[np.int64]


def draw_indices(total: int, count: int, seed: int, labels: Optional[npt.NDArray[Any]] = None) -> Indices:
    """Draw ``count`` of ``total`` indices at random, without replacement, in random order.

    With labels, each class gets its share, rounded down or up: the samples are shuffled, sorted by class, and drawn
    at equal intervals (systematic sampling).

    Args:
        total: Number of samples.
        count: Samples to draw, 1 to ``total``.
        seed: 0 to 2³² − 1. The same seed gives the same indices with every release of NumPy.
        labels: The class of each sample (total,).

    Returns:
        Indices (count,).

    Raises:
        DataError: ``count`` is below 1 or above ``total``.
        InputError: The seed is out of range.

    Example:
        >>> labels = np.repeat([0, 1], [80, 20])
        >>> drawn = draw_indices(100, 10, seed=0, labels=labels)
        >>> np.bincount(labels[drawn]).tolist()
        [8, 2]
    """
    if not 0 < count <= total:
        raise DataError(f"{count} samples are requested, {total} exist", f"Request 1 to {total} samples.")
    if not 0 <= seed < 2**32:
        raise InputError(f"seed {seed} is out of range", "Use a seed from 0 to 4294967295.")
    # Only RandomState, not default_rng, guarantees the same numbers in every release.
    rng = np.random.RandomState(seed)
    order = rng.permutation(total)
    if labels is not None:
        order = order[np.argsort(labels[order], kind="stable")]
    # Positions in equal steps of total / count, from a random start.
    picked = order[(np.arange(count, dtype=np.int64) * total + rng.randint(total)) // count]
    return rng.permutation(picked).astype(np.int64)
