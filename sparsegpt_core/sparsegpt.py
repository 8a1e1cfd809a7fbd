"""SparseGPT (Frantar & Alistarh, 2023): Optimal Brain Surgeon, column by column, with one shared factor."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsegpt_core.masks import keep_mask
from sparsegpt_core.patterns import NM, Pattern

__all__ = ["sparsegpt"]


def sparsegpt(weight: Tensor, upper: Tensor, pattern: Pattern, block_size: int = 128) -> Tensor:
    """Prune a weight matrix and let the kept weights absorb the error.

    The rows of U make column j's part of H⁻¹ valid once the columns before j are frozen; removing
    w_q costs w_q² / U_qq² and moves the columns behind it by −(w_q / U_qq) U_q,q: (Frantar & Alistarh,
    2023, algorithm 1). The mask is adaptive: it is chosen from the current values, group by group for N:M
    and block by block for an unstructured fraction.

    Args:
        weight: (K, d); not changed.
        upper: U (d, d), upper triangular, (H + λI)⁻¹ = UᵀU, from :func:`~sparsegpt_core.hessian.inverse_factor`.
        pattern: What to prune to; d must be a multiple of M for N:M.
        block_size: Columns per block (lazy updates); rounded up to a multiple of M.

    Returns:
        (K, d) with pruned entries exactly 0.
    """
    columns = weight.shape[1]
    if isinstance(pattern, NM):
        block_size = -(-block_size // pattern.m) * pattern.m
    # Transposed, so that a column of the weight lies contiguous: the loop below works on whole columns.
    work = weight.T.clone(memory_format=torch.contiguous_format)
    for start in range(0, columns, block_size):
        stop = min(start + block_size, columns)
        errors = _prune_block(work[start:stop], upper[start:stop, start:stop], pattern)
        work[stop:].addmm_(upper[start:stop, stop:].T, errors, alpha=-1)
    return work.T.contiguous()


def _prune_block(block: Tensor, upper: Tensor, pattern: Pattern) -> Tensor:
    """Prune ``block`` (B, K) in place; return the errors (B, K) that the columns behind it must absorb."""
    diagonal = upper.diagonal()[:, None]
    errors = torch.zeros_like(block)
    group = pattern.m if isinstance(pattern, NM) else len(block)
    for first in range(0, len(block), group):
        last = first + group
        scores = (block[first:last] / diagonal[first:last]) ** 2
        pruned = ~keep_mask(scores.T, pattern).T
        for q in range(first, last):
            errors[q] = block[q] / diagonal[q] * pruned[q - first]
            block[q:].addr_(upper[q, q:], errors[q], alpha=-1)
            block[q].masked_fill_(pruned[q - first], 0)
    return errors
