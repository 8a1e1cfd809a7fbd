"""Round the kept weights of a pruned layer to an INT8 grid; later columns absorb the rounding errors."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsegpt_core.linalg import Upper
from sparsegpt_core.solvers.column_blocks import in_blocks

__all__ = ["grid_scales", "quantise"]

_SCALES_PER_ROW = 20  # to try, from max|w| / 127 down
_MIN_RELATIVE_SCALE = 0.4  # the smallest of them, relative to the largest


def quantise(sparse: Tensor, upper: Upper, scales: Tensor, bits: int = 8, block_size: int = 128) -> Tensor:
    """Round to multiples of s_k, column by column, and let the later columns absorb the error.

    OBQ with one shared factor (Frantar et al., 2022; GPTQ), on a mask. Pruned weights absorb errors like the others
    and are then set back to zero; the later columns absorb that error in turn. ``sparse`` should be refitted
    (:func:`~sparsegpt_core.solvers.refit.refit_weights`): there the gradient is zero on the mask, so the error against
    the dense target and the error against ``sparse`` differ by a constant.

    Args:
        sparse: (K, d), refitted on its mask; not changed. Zeros stay zero.
        upper: V (d, d), upper triangular, H_λ = V Vᵀ, from :meth:`~sparsegpt_core.linalg.Hessian.factor`.
        scales: s (K,), positive.
        bits: Width of the symmetric integers: −127 to 127 for 8.
        block_size: Columns per block (lazy updates).

    Returns:
        (K, d), every entry an integer times its row's scale.
    """
    limit = _limit(bits)
    kept = (sparse != 0).T.to(sparse.dtype)  # (d, K)

    def round_block(block: Tensor, corner: Tensor, columns: slice) -> Tensor:
        identity = torch.eye(len(corner), dtype=corner.dtype, device=corner.device)
        moves = torch.linalg.solve_triangular(corner, identity, upper=True).T.contiguous()  # U_bbᵀ (B, B)
        rounded, errors = torch.empty_like(block), torch.empty_like(block)
        for index, (value, mask) in enumerate(zip(block, kept[columns])):
            # The column's current values, after the errors of the columns before it: (K,) − (K, index) @ (index,)
            value = torch.addmv(value, errors[:index].T, moves[index, :index], alpha=-1)
            # To the nearest integer, and to zero where pruned.
            integer = (value / scales).round_().clamp_(-limit, limit)
            torch.mul(integer.mul_(mask), scales, out=rounded[index])
            # The error in units of U_qq: V_qq = 1 / U_qq.
            torch.mul(value - rounded[index], corner[index, index], out=errors[index])
        return rounded

    return in_blocks(sparse, upper, block_size, round_block)


def grid_scales(weight: Tensor, importance: Tensor, bits: int = 8) -> Tensor:
    """Choose symmetric scales, one for each row, by the error of rounding to nearest.

    Args:
        weight: (K, d).
        importance: (d,), the cost of a squared error in each column: diag(H_λ).
        bits: Width of the integers.

    Returns:
        s (K,), the best of 20 scales between max|w| / limit and 0.4 times that, with which the largest weights
        saturate; 1 for rows of zeros. The limit is 127 for 8 bits.

    Example:
        >>> import torch
        >>> grid_scales(torch.tensor([[127.0, 3.0], [0.0, 0.0]]), torch.ones(2)).tolist()
        [1.0, 1.0]
    """
    limit = _limit(bits)
    peak = weight.abs().amax(dim=1)
    widest = torch.where(peak > 0, peak / limit, 1)
    best, smallest = widest, torch.full_like(widest, torch.inf)
    for shrink in torch.linspace(1, _MIN_RELATIVE_SCALE, _SCALES_PER_ROW).tolist():
        scales = widest * shrink
        rounded = (weight / scales[:, None]).round_().clamp_(-limit, limit).mul_(scales[:, None])
        # (K, d) @ (d,) -> (K,)
        errors = rounded.sub_(weight).square_() @ importance
        best, smallest = torch.where(errors < smallest, scales, best), torch.minimum(errors, smallest)
    return best


def _limit(bits: int) -> int:
    return (1 << (bits - 1)) - 1
