"""Freeze a matrix block by block of columns, those behind absorbing the errors."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sparsegpt_core.execution import spans
from sparsegpt_core.linalg import Upper

__all__ = ["in_blocks"]


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
    pulls = upper.pulls(changes)
    for columns in spans(weight.shape[1], block_size):
        block = frozen[columns]
        corner = upper.corner(columns)
        current = block + torch.linalg.solve_triangular(corner.T, pulls(columns), upper=False)
        changes[columns] = block
        frozen[columns] = freeze(current, corner, columns)
        changes[columns] -= frozen[columns]
    return frozen.T.contiguous()
