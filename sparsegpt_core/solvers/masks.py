"""Masks over weight matrices: True where a weight is kept."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from sparsegpt_core.errors import InputError
from sparsegpt_core.patterns import NM, Pattern

__all__ = ["keep_mask", "magnitude", "project", "ranks"]


def keep_mask(scores: Tensor, pattern: Pattern) -> Tensor:
    """Keep the entries with the largest scores under ``pattern``; ties go to the first of them.

    Args:
        scores: (K, d); for N:M d must be a multiple of M.
        pattern: N:M, within every M consecutive columns, or a fraction of zeros of the whole matrix.

    Returns:
        (K, d), boolean.

    Raises:
        InputError: d is not a multiple of M.

    Example:
        >>> import torch
        >>> keep_mask(torch.tensor([[1.0, 4.0, 3.0, 3.0]]), NM(2, 4)).tolist()
        [[False, True, True, False]]
    """
    if isinstance(pattern, NM):
        return _kept(scores, pattern).bool()
    keep = scores.numel() - round(pattern.sparsity * scores.numel())
    order = scores.flatten().argsort(descending=True, stable=True)[:keep]
    return torch.zeros_like(scores, dtype=torch.bool).flatten().index_fill_(0, order, True).reshape(scores.shape)


def project(weight: Tensor, pattern: Pattern) -> Tensor:
    """Return the nearest matrix to ``weight`` (K, d) that obeys ``pattern``: it keeps the largest magnitudes.

    The same as :func:`magnitude`, but faster for N:M, and a pruned −1 becomes −0.

    Raises:
        InputError: d is not a multiple of M.
    """
    scores = weight.abs()
    return weight * (_kept(scores, pattern) if isinstance(pattern, NM) else keep_mask(scores, pattern))


def ranks(scores: Tensor) -> Tensor:
    """Return for every score how many others of its column are larger; of equal scores the first counts as larger.

    It compares all pairs, in two small products. For a handful of rows that is much faster than sorting.

    Args:
        scores: (M, columns), finite.

    Returns:
        (M, columns), 0 to M − 1, in the scores' dtype.
    """
    difference, credit, start = _pairs(len(scores), scores.dtype, scores.device)
    first_wins = (difference @ scores).ge_(0)  # (pairs, M) @ (M, columns) -> (pairs, columns)
    # (M, 1) + (M, pairs) @ (pairs, columns) -> (M, columns)
    return torch.addmm(start, credit, first_wins)


@lru_cache
def _pairs(length: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return three constant matrices over the pairs i < j of rows.

    Returns:
        The differences s_i − s_j (pairs, M); the change of the ranks if i wins (M, pairs): −1 for i and 1 for j; and
        the ranks if i wins no pair (M, 1).
    """
    first, second = torch.triu_indices(length, length, 1)
    identity = torch.eye(length, dtype=dtype)
    difference = identity[first] - identity[second]
    start = torch.arange(length - 1, -1, -1, dtype=dtype)[:, None]
    return difference.to(device), -difference.T.contiguous().to(device), start.to(device)


def _kept(scores: Tensor, pattern: NM) -> Tensor:
    """Return 1 where a score (K, d) is kept and 0 elsewhere, in the scores' dtype: booleans are slow to copy."""
    rows, columns = scores.shape
    if columns % pattern.m:
        raise InputError(f"{columns} columns are not a multiple of the group size {pattern.m}")
    kept = (pattern.n - ranks(scores.reshape(-1, pattern.m).T)).clamp_(0, 1)  # (M, groups)
    # (M, K, d / M) -> (K, d / M, M) -> (K, d). A transpose of the thin matrix would take three times as long.
    return kept.view(pattern.m, rows, columns // pattern.m).permute(1, 2, 0).reshape(scores.shape)


def magnitude(weight: Tensor, pattern: Pattern) -> Tensor:
    """Return ``weight`` (K, d) with the smallest |w| of each group (or of the layer) set to zero.

    Example:
        >>> import torch
        >>> magnitude(torch.tensor([[1.0, -4.0, 3.0, 2.0]]), NM(2, 4)).tolist()
        [[0.0, -4.0, 3.0, 0.0]]
    """
    return weight.masked_fill(~keep_mask(weight.abs(), pattern), 0)
