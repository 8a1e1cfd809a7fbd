"""Round the kept weights of a pruned layer to an INT8 grid, second-order: pruning and quantisation in one loop."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsegpt_core.linalg import Upper
from sparsegpt_core.solvers.column_blocks import in_blocks

__all__ = ["grid_scales", "quantise"]

_SHRINKS = 20  # scales that are tried, from max|w| down
_LEAST = 0.4  # the smallest of them, relative to max|w|


def quantise(sparse: Tensor, upper: Upper, scales: Tensor, bits: int = 8, block_size: int = 128) -> Tensor:
    """Round to s_k · integer, column by column, and let the columns behind absorb the error.

    OBQ with one shared factor (Frantar et al., 2022; GPTQ), on a mask: pruned columns absorb like the others and are
    then set back to zero, which is an error that the columns behind them absorb in turn. Around a refitted layer
    (:func:`~sparsegpt_core.solvers.refit.refit_weights`) the error against the dense target
    and that against the refitted weights differ by a constant, as the gradient is zero on the mask; so the loop starts
    there, where pruning costs it nothing.

    Args:
        sparse: (K, d), refitted on its mask: what is zero stays zero; not changed.
        upper: V (d, d), upper triangular, H_λ = V Vᵀ, from :meth:`~sparsegpt_core.linalg.Hessian.factor`.
        scales: s (K,), positive.
        bits: Width of the symmetric integers: ±127 for 8.
        block_size: Columns per block (lazy updates).

    Returns:
        (K, d), every entry the product of an integer and its row's scale.
    """
    limit = _limit(bits)
    kept = (sparse != 0).T.to(sparse.dtype)

    def round_block(block: Tensor, corner: Tensor, columns: slice) -> Tensor:
        identity = torch.eye(len(corner), dtype=corner.dtype, device=corner.device)
        moves = torch.linalg.solve_triangular(corner, identity, upper=True).T.contiguous()
        rounded, errors = torch.empty_like(block), torch.empty_like(block)
        for index, (value, mask) in enumerate(zip(block, kept[columns])):
            value = torch.addmv(value, errors[:index].T, moves[index, :index], alpha=-1)
            integer = (value / scales).round_().clamp_(-limit, limit)
            torch.mul(integer.mul_(mask), scales, out=rounded[index])
            torch.mul(value - rounded[index], corner[index, index], out=errors[index])
        return rounded

    return in_blocks(sparse, upper, block_size, round_block)


def grid_scales(weight: Tensor, importance: Tensor, bits: int = 8) -> Tensor:
    """Choose symmetric scales, one for each row, by the error of rounding to nearest.

    Args:
        weight: (K, d).
        importance: (d,), what a squared error costs in each column: diag(H_λ).
        bits: Width of the integers.

    Returns:
        s (K,): the best of a few that stretch from max|w| / limit down, where the largest weights saturate; 1 for
        rows of zeros.
    """
    limit = _limit(bits)
    peak = weight.abs().amax(dim=1)
    widest = torch.where(peak > 0, peak / limit, 1)
    best, least = widest, torch.full_like(widest, torch.inf)
    for shrink in torch.linspace(1, _LEAST, _SHRINKS).tolist():
        scales = widest * shrink
        rounded = (weight / scales[:, None]).round_().clamp_(-limit, limit).mul_(scales[:, None])
        errors = rounded.sub_(weight).square_() @ importance
        best, least = torch.where(errors < least, scales, best), torch.minimum(errors, least)
    return best


def _limit(bits: int) -> int:
    return (1 << (bits - 1)) - 1
