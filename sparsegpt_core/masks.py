"""Masks over weight matrices: True where a weight is kept."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsegpt_core.errors import InputError
from sparsegpt_core.patterns import NM, Pattern

__all__ = ["keep_mask"]


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
        return _keep_nm(scores, pattern)
    prune = round(pattern.sparsity * scores.numel())
    return _keep_largest(scores.reshape(1, -1), scores.numel() - prune).reshape(scores.shape)


def _keep_nm(scores: Tensor, pattern: NM) -> Tensor:
    if scores.shape[1] % pattern.m:
        raise InputError(f"{scores.shape[1]} columns are not a multiple of the group size {pattern.m}")
    return _keep_largest(scores.reshape(-1, pattern.m), pattern.n).reshape(scores.shape)


def _keep_largest(scores: Tensor, count: int) -> Tensor:
    """Mark the ``count`` largest entries of every row."""
    order = scores.argsort(dim=1, descending=True, stable=True)[:, :count]
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(1, order, True)
