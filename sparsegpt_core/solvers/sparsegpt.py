"""SparseGPT (Frantar & Alistarh, 2023): Optimal Brain Surgeon, column by column, with one shared factor."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsegpt_core.linalg import Upper
from sparsegpt_core.patterns import NM, Pattern
from sparsegpt_core.solvers.column_blocks import in_blocks
from sparsegpt_core.solvers.masks import keep_mask, ranks

__all__ = ["prune_with_sparsegpt"]

_UNSTRUCTURED_STEP_COLUMNS = 16  # handled together where the pattern has no groups


def prune_with_sparsegpt(weight: Tensor, upper: Upper, pattern: Pattern, block_size: int = 128) -> Tensor:
    """Prune a weight matrix and let the kept weights absorb the error.

    Let (H + λI)⁻¹ = UᵀU. Once the columns before q are frozen, row q of U gives row q of the inverse Hessian of the
    columns left, U_qq U_q,q:. So removing w_q costs w_q² / U_qq² and moves the columns after it by −(w_q / U_qq) U_q,q:
    (Frantar & Alistarh, 2023, algorithm 1). The mask is adaptive: it is chosen from the current values, group by group
    for N:M and block by block for an unstructured fraction.

    Args:
        weight: (K, d); not changed.
        upper: V (d, d), upper triangular, H + λI = V Vᵀ, from :meth:`~sparsegpt_core.linalg.Hessian.factor`.
        pattern: The pattern of zeros; for N:M d must be a multiple of M.
        block_size: Columns per block (lazy updates); rounded up to a multiple of M.

    Returns:
        (K, d) with pruned entries exactly 0.
    """
    if isinstance(pattern, NM):
        block_size = -(-block_size // pattern.m) * pattern.m

    def prune_block(block: Tensor, corner: Tensor, _: slice) -> Tensor:
        return _prune_block(block, corner, pattern)

    return in_blocks(weight, upper, block_size, prune_block)


def _prune_block(block: Tensor, corner: Tensor, pattern: Pattern) -> Tensor:
    """Prune the current values (B, K) of a block of columns, given its corner (B, B) of V.

    In units of U_qq the square of a value is its cost, and the values of the pruned weights are the errors E.
    """
    scale = corner.diagonal()[:, None]  # V_qq = 1 / U_qq (B, 1)
    identity = torch.eye(len(corner), dtype=corner.dtype, device=corner.device)
    # In units of U_qq, how far a unit of error in one column moves each later column: (B, B)
    moves = (torch.linalg.solve_triangular(corner, identity, upper=True).T * scale).tril(-1)
    values = block * scale
    errors = torch.zeros_like(values)  # E (B, K)
    if isinstance(pattern, NM):
        step, chain = pattern.m, pattern.m - pattern.n
        pruned = torch.empty_like(values)
    else:
        step = chain = _UNSTRUCTURED_STEP_COLUMNS
        pruned = (~keep_mask(values.abs().T, pattern).T).to(values.dtype)
    pieces = (torch.split(tensor, step) for tensor in (values, moves, errors, pruned))
    for index, (value, move, error, cut) in enumerate(zip(*pieces, strict=True)):
        first, last = index * step, index * step + len(value)
        # The group's current values, after the errors of the groups before it: (M, K) − (M, first) @ (first, K)
        value = torch.addmm(value, move[:, :first], errors[:first], alpha=-1)
        if isinstance(pattern, NM):
            torch.ge(ranks(value.abs()), pattern.n, out=cut)
        # E is value − (moves E) at pruned weights and 0 elsewhere. A pruned weight is moved only by the pruned weights
        # before it, so every round makes one more of them exact.
        own = move[:, first:last]
        torch.mul(value, cut, out=error)
        for _ in range(chain - 1):
            torch.mul(torch.addmm(value, own, error, alpha=-1), cut, out=error)
    return block.addmm(moves / scale, errors, alpha=-1).masked_fill_(pruned.bool(), 0)
