"""Which samples to take: seeded, without replacement, in proportion to the classes. NumPy only."""

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

    With labels it is a systematic sample of the shuffled samples sorted by class, so that every class
    gets its share rounded down or up.

    Args:
        total: Samples that exist.
        count: Samples to draw, 1 to ``total``.
        seed: 0 to 2³² − 1; the same seed gives the same draw with every release of NumPy.
        labels: The class of each sample (total,).

    Raises:
        DataError: More samples are asked for than exist, or none.
        InputError: The seed is out of range.
    """
    if not 0 < count <= total:
        raise DataError(f"{count} samples asked for, {total} exist", f"Ask for 1 to {total} samples.")
    if not 0 <= seed < 2**32:
        raise InputError(f"seed {seed} is out of range", "Use a seed from 0 to 4294967295.")
    # Not default_rng: only RandomState promises the same stream in every release.
    rng = np.random.RandomState(seed)
    order = rng.permutation(total)
    if labels is not None:
        order = order[np.argsort(labels[order], kind="stable")]
    picked = order[(np.arange(count, dtype=np.int64) * total + rng.randint(total)) // count]
    return rng.permutation(picked).astype(np.int64)
