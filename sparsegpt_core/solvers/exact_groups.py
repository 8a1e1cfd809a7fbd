"""SparseGPT with exact groups: which weights of a group go is decided by what they cost together."""

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

_CHOICES = 1000  # per group, each of them a product


def prune_with_exact_groups(weight: Tensor, upper: Upper, pattern: NM, block_size: int = 128) -> Tensor:
    """Prune a weight matrix group by group of M columns, those behind absorbing the error.

    SparseGPT removes the weights with the smallest w_q² / U_qq², as if each went alone. Here every choice T of M − N
    columns has its exact cost w_T C_TT⁻¹ w_Tᵀ, where C is the group's block of the inverse of H_λ once the columns
    before the group are frozen; with (H_λ)⁻¹ = UᵀU that is C = U_ggᵀ U_gg. The multipliers λ = C_TT⁻¹ w_T move the
    group and the columns behind it by −λᵀ U_ggᵀ U_g,: (Hassibi & Stork, 1993, for several weights at a time).

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
    if comb(size, pattern.n) > _CHOICES:
        raise InputError(f"{pattern} has too many choices to try them all", "Use 2:4, or --mask adaptive.")
    choices = torch.tensor(list(itertools.combinations(range(size), size - pattern.n)), device=weight.device)
    removed = torch.zeros(size, len(choices), dtype=torch.bool, device=weight.device).scatter_(0, choices.T, True)

    def prune_block(block: Tensor, corner: Tensor, _: slice) -> Tensor:
        identity = torch.eye(len(corner), dtype=corner.dtype, device=corner.device)
        moves = torch.linalg.solve_triangular(corner, identity, upper=True).T.contiguous()
        groups = moves.unflatten(0, (-1, size)).unflatten(2, (-1, size)).diagonal(dim1=0, dim2=2).permute(2, 1, 0)
        solvers = _solvers(groups, choices)
        errors, pruned = torch.zeros_like(block), torch.empty_like(block, dtype=torch.bool)
        for index, (own, solver) in enumerate(zip(groups, solvers)):
            first, rows = index * size, slice(index * size, (index + 1) * size)
            value = torch.addmm(block[rows], moves[rows, :first], errors[:first], alpha=-1)
            multipliers = (solver @ value).unflatten(0, (-1, size))
            best = (multipliers * value).sum(dim=1).argmin(dim=0)
            errors[rows] = own @ multipliers.gather(0, best.expand(1, size, -1))[0]
            pruned[rows] = removed[:, best]
        return block.addmm(moves, errors, alpha=-1).masked_fill_(pruned, 0)

    return in_blocks(weight, upper, -(-block_size // size) * size, prune_block)


def _solvers(groups: Tensor, choices: Tensor) -> Tensor:
    """For the blocks U_gg (groups, M, M): C_TT⁻¹ of every choice, between zeros, stacked: (groups, choices · M, M)."""
    inverse = groups.mT @ groups
    rows, columns = choices[:, :, None], choices[:, None, :]
    solvers = inverse.new_zeros(len(inverse), len(choices), *inverse.shape[1:])
    solvers[:, torch.arange(len(choices), device=inverse.device)[:, None, None], rows, columns] = torch.linalg.inv(
        inverse[:, rows, columns]
    )
    return solvers.flatten(1, 2)
