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
    """
    if isinstance(pattern, NM):
        return _kept(scores, pattern).bool()
    keep = scores.numel() - round(pattern.sparsity * scores.numel())
    order = scores.flatten().argsort(descending=True, stable=True)[:keep]
    return torch.zeros_like(scores, dtype=torch.bool).flatten().index_fill_(0, order, True).reshape(scores.shape)


def project(weight: Tensor, pattern: Pattern) -> Tensor:
    """Return ``weight`` (K, d) with zeros wherever ``pattern`` does not keep its largest magnitudes.

    Raises:
        InputError: As :func:`keep_mask` does.
    """
    scores = weight.abs()
    return weight * (_kept(scores, pattern) if isinstance(pattern, NM) else keep_mask(scores, pattern))


def ranks(scores: Tensor) -> Tensor:
    """Count for every score how many others of its column beat it; of equal ones the first wins.

    By comparing all pairs, in two small products: for a handful of rows far quicker than sorting.

    Args:
        scores: (M, columns), finite.

    Returns:
        (M, columns), 0 to M − 1, in the scores' dtype.
    """
    difference, credit, start = _pairs(len(scores), scores.dtype, scores.device)
    first_wins = (difference @ scores).ge_(0)
    return torch.addmm(start, credit, first_wins)


@lru_cache
def _pairs(length: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """For the pairs i < j: s_i − s_j; whose rank a win of i lowers and raises; the ranks without a win."""
    first, second = torch.triu_indices(length, length, 1)
    identity = torch.eye(length, dtype=dtype)
    difference = identity[first] - identity[second]
    start = torch.arange(length - 1, -1, -1, dtype=dtype)[:, None]
    return difference.to(device), -difference.T.contiguous().to(device), start.to(device)


def _kept(scores: Tensor, pattern: NM) -> Tensor:
    """Return 1 where a score (K, d) is kept and 0 elsewhere, in the scores' dtype, as booleans are slow to copy."""
    rows, columns = scores.shape
    if columns % pattern.m:
        raise InputError(f"{columns} columns are not a multiple of the group size {pattern.m}")
    kept = (pattern.n - ranks(scores.reshape(-1, pattern.m).T)).clamp_(0, 1)
    # Copied as a matrix, so thin a transpose would take three times as long.
    return kept.view(pattern.m, rows, columns // pattern.m).permute(1, 2, 0).reshape(scores.shape)


def magnitude(weight: Tensor, pattern: Pattern) -> Tensor:
    """Return ``weight`` (K, d) with the smallest |w| of each group (or of the layer) set to zero."""
    return weight.masked_fill(~keep_mask(weight.abs(), pattern), 0)
