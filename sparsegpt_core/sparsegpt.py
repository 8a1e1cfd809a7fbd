"""SparseGPT (Frantar & Alistarh, 2023): Optimal Brain Surgeon, column by column, with one shared factor."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sparsegpt_core.low_rank import LowRankUpper, Upper
from sparsegpt_core.masks import keep_mask, ranks
from sparsegpt_core.parallel import spans
from sparsegpt_core.patterns import NM, Pattern

__all__ = ["in_blocks", "sparsegpt"]

_STEP = 16  # columns handled together where the pattern has no groups


def sparsegpt(weight: Tensor, upper: Upper, pattern: Pattern, block_size: int = 128) -> Tensor:
    """Prune a weight matrix and let the kept weights absorb the error.

    With (H + λI)⁻¹ = UᵀU the rows of U make column j's part of H⁻¹ valid once the columns before j are
    frozen; removing w_q costs w_q² / U_qq² and moves the columns behind it by −(w_q / U_qq) U_q,q:
    (Frantar & Alistarh, 2023, algorithm 1). The mask is adaptive: it is chosen from the current values,
    group by group for N:M and block by block for an unstructured fraction.

    Args:
        weight: (K, d); not changed.
        upper: V (d, d), upper triangular, H + λI = V Vᵀ, from :func:`~sparsegpt_core.hessian.inverse_factor`.
        pattern: What to prune to; d must be a multiple of M for N:M.
        block_size: Columns per block (lazy updates); rounded up to a multiple of M.

    Returns:
        (K, d) with pruned entries exactly 0.
    """
    if isinstance(pattern, NM):
        block_size = -(-block_size // pattern.m) * pattern.m

    def prune_block(block: Tensor, corner: Tensor, _: slice) -> Tensor:
        return _prune_block(block, corner, pattern)

    return in_blocks(weight, upper, block_size, prune_block)


def in_blocks(
    weight: Tensor, upper: Upper, block_size: int, freeze: Callable[[Tensor, Tensor, slice], Tensor]
) -> Tensor:
    """Freeze a weight matrix block by block of columns, each letting those behind it absorb its errors.

    The errors E, in units of U_qq, add up to W − Ŵ = E U, so E = (W − Ŵ) V with V = U⁻¹. For the
    columns of a block E is 0 before anything is frozen there; the changes Δ = W − Ŵ before the block thus
    say what the block's values are by then: W_b + (Δ V_:b) V_bb⁻¹. U itself is never needed.

    Args:
        weight: W (K, d); not changed.
        upper: V (d, d), upper triangular.
        block_size: Columns per block.
        freeze: Given the current values (B, K) of a block, its corner (B, B) of V and its columns, returns its
            final values (B, K).

    Returns:
        Ŵ (K, d).
    """
    # Transposed, so that a column of the weight lies contiguous: the loops work on whole columns.
    frozen = weight.T.clone(memory_format=torch.contiguous_format)
    changes = torch.zeros_like(frozen)
    pulls = _pulls(upper, changes)
    for columns in spans(weight.shape[1], block_size):
        block = frozen[columns]
        corner = upper.corner(columns) if isinstance(upper, LowRankUpper) else upper[columns, columns]
        current = block + torch.linalg.solve_triangular(corner.T, pulls(columns), upper=False)
        changes[columns] = block
        frozen[columns] = freeze(current, corner, columns)
        changes[columns] -= frozen[columns]
    return frozen.T.contiguous()


def _pulls(upper: Upper, changes: Tensor) -> Callable[[slice], Tensor]:
    """Return what gives V_abᵀ Δ_a (B, K) for one block b after the other, a being all columns before it."""
    if isinstance(upper, LowRankUpper):
        return upper.pulls(changes)
    return lambda columns: upper[: columns.start, columns].T @ changes[: columns.start]


def _prune_block(block: Tensor, corner: Tensor, pattern: Pattern) -> Tensor:
    """Prune the current values (B, K) of a block of columns, given its corner (B, B) of V.

    In units of U_qq the values' squares are the costs, and those of the pruned weights are the errors E.
    """
    scale = corner.diagonal()[:, None]
    identity = torch.eye(len(corner), dtype=corner.dtype, device=corner.device)
    # What a unit of error takes from each column behind it.
    moves = (torch.linalg.solve_triangular(corner, identity, upper=True).T * scale).tril(-1)
    values = block * scale
    errors = torch.zeros_like(values)
    if isinstance(pattern, NM):
        step, chain = pattern.m, pattern.m - pattern.n
        pruned = torch.empty_like(values)
    else:
        step = chain = _STEP
        pruned = (~keep_mask(values.abs().T, pattern).T).to(values.dtype)
    pieces = (torch.split(tensor, step) for tensor in (values, moves, errors, pruned))
    for index, (value, move, error, cut) in enumerate(zip(*pieces, strict=True)):
        first, last = index * step, index * step + len(value)
        value = torch.addmm(value, move[:, :first], errors[:first], alpha=-1)
        if isinstance(pattern, NM):
            torch.ge(ranks(value.abs()), pattern.n, out=cut)
        # E is 0 where nothing is pruned, and value − (moves E) where something is; as a pruned weight is moved
        # only by those before it, every round makes one more of them exact.
        own = move[:, first:last]
        torch.mul(value, cut, out=error)
        for _ in range(chain - 1):
            torch.mul(torch.addmm(value, own, error, alpha=-1), cut, out=error)
    return block.addmm(moves / scale, errors, alpha=-1).masked_fill_(pruned.bool(), 0)
