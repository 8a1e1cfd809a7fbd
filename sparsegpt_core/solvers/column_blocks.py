"""Freeze a matrix block by block of columns; the later columns absorb the errors."""

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
    """Freeze a weight matrix block by block of columns; the columns after a block absorb its errors.

    The errors E, in units of U_qq, add up to W − Ŵ = E U, so E = (W − Ŵ) V with V = U⁻¹. In a block's columns E is 0
    until the block is frozen. So the changes Δ = W − Ŵ of the columns before it determine the block's current values:
    W_b + (Δ V_:b) V_bb⁻¹. U itself is never needed.

    Args:
        weight: W (K, d); not changed.
        upper: V (d, d), upper triangular.
        block_size: Columns per block.
        freeze: Called with the current values (B, K) of a block, its corner (B, B) of V and its columns; returns
            its final values (B, K).

    Returns:
        Ŵ (K, d).
    """
    # Transposed (d, K), so that each column of the weight is contiguous: the loops work on whole columns.
    frozen = weight.T.clone(memory_format=torch.contiguous_format)
    changes = torch.zeros_like(frozen)  # Δ (d, K)
    pulls = upper.pulls(changes)
    for columns in spans(weight.shape[1], block_size):
        block = frozen[columns]  # W_b (B, K)
        corner = upper.corner(columns)
        # (B, K) + (B, B)⁻ᵀ @ (B, K) -> (B, K)
        current = block + torch.linalg.solve_triangular(corner.T, pulls(columns), upper=False)
        changes[columns] = block
        frozen[columns] = freeze(current, corner, columns)
        changes[columns] -= frozen[columns]
    return frozen.T.contiguous()
