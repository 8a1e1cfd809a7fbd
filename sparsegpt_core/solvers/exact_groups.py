"""SparseGPT with exact groups: the weights that a group loses are chosen by their joint cost."""

from __future__ import annotations

import itertools
from math import comb

import torch
from torch import Tensor

from sparsegpt_core.errors import InputError
from sparsegpt_core.linalg import Upper
from sparsegpt_core.patterns import NM
from sparsegpt_core.solvers.column_blocks import in_blocks

__all__ = ["prune_with_exact_groups"]

_MAX_CHOICES_PER_GROUP = 1000  # each is one product


def prune_with_exact_groups(weight: Tensor, upper: Upper, pattern: NM, block_size: int = 128) -> Tensor:
    """Prune a weight matrix group by group of M columns; the later columns absorb the error.

    SparseGPT removes the weights with the smallest w_q² / U_qq², as if each were removed alone. Here every choice T of
    M − N columns has its exact cost w_T C_TT⁻¹ w_Tᵀ, where C is the group's block of the inverse of H_λ once the
    columns before the group are frozen. With (H_λ)⁻¹ = UᵀU, C = U_ggᵀ U_gg. The multipliers λ = C_TT⁻¹ w_T move the
    group and the columns after it by −λᵀ U_ggᵀ U_g,: (Hassibi & Stork, 1993, for several weights at a time).

    Args:
        weight: (K, d); not changed.
        upper: V (d, d), upper triangular, H_λ = V Vᵀ, from :meth:`~sparsegpt_core.linalg.Hessian.factor`.
        pattern: N:M; d must be a multiple of M.
        block_size: Columns per block (lazy updates); rounded up to a multiple of M.

    Returns:
        (K, d) with pruned entries exactly 0.

    Raises:
        InputError: The groups are too large to try all choices.
    """
    size = pattern.m
    if comb(size, pattern.n) > _MAX_CHOICES_PER_GROUP:
        raise InputError(f"{pattern} has too many choices to try them all", "Use 2:4, or `mask=adaptive`.")
    # The columns that each choice removes (choices, M − N), and the same as a mask (M, choices).
    choices = torch.tensor(list(itertools.combinations(range(size), size - pattern.n)), device=weight.device)
    removed = torch.zeros(size, len(choices), dtype=torch.bool, device=weight.device).scatter_(0, choices.T, True)

    def prune_block(block: Tensor, corner: Tensor, _: slice) -> Tensor:
        identity = torch.eye(len(corner), dtype=corner.dtype, device=corner.device)
        # U_bbᵀ (B, B), and its diagonal blocks U_gg (groups, M, M).
        moves = torch.linalg.solve_triangular(corner, identity, upper=True).T.contiguous()
        groups = moves.unflatten(0, (-1, size)).unflatten(2, (-1, size)).diagonal(dim1=0, dim2=2).permute(2, 1, 0)
        solvers = _solvers(groups, choices)
        errors, pruned = torch.zeros_like(block), torch.empty_like(block, dtype=torch.bool)
        for index, (own, solver) in enumerate(zip(groups, solvers)):
            first, rows = index * size, slice(index * size, (index + 1) * size)
            # The group's current values, after the errors of the groups before it: (M, K)
            value = torch.addmm(block[rows], moves[rows, :first], errors[:first], alpha=-1)
            # (choices · M, M) @ (M, K) -> (choices, M, K)
            multipliers = (solver @ value).unflatten(0, (-1, size))
            # The cheapest choice of each row of the weight: (choices, K) -> (K,)
            best = (multipliers * value).sum(dim=1).argmin(dim=0)
            # (M, M) @ (M, K) -> (M, K)
            errors[rows] = own @ multipliers.gather(0, best.expand(1, size, -1))[0]
            pruned[rows] = removed[:, best]
        return block.addmm(moves, errors, alpha=-1).masked_fill_(pruned, 0)

    return in_blocks(weight, upper, -(-block_size // size) * size, prune_block)


def _solvers(groups: Tensor, choices: Tensor) -> Tensor:
    """Return C_TT⁻¹ of every choice for the blocks U_gg (groups, M, M), padded with zeros: (groups, choices · M, M)."""
    inverse = groups.mT @ groups  # C (groups, M, M)
    rows, columns = choices[:, :, None], choices[:, None, :]
    solvers = inverse.new_zeros(len(inverse), len(choices), *inverse.shape[1:])
    # C_TT (groups, choices, M − N, M − N), inverted into rows and columns T of zeros.
    solvers[:, torch.arange(len(choices), device=inverse.device)[:, None, None], rows, columns] = torch.linalg.inv(
        inverse[:, rows, columns]
    )
    return solvers.flatten(1, 2)
