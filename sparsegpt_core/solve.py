"""Prune one layer's matrix, and say what that does to its output."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sparsegpt_core.distributed import ALONE, World
from sparsegpt_core.hessian import Factor, inverse_factor
from sparsegpt_core.magnitude import magnitude
from sparsegpt_core.parallel import each, spans
from sparsegpt_core.patterns import NM
from sparsegpt_core.refit import refit
from sparsegpt_core.settings import PruneSettings
from sparsegpt_core.sparsegpt import sparsegpt
from sparsegpt_core.statistics import Moments

__all__ = ["Solution", "solve"]

_TAME = 2.0**20  # mean(diag H) from its inverse up to this needs no scaling
_ROWS = 256  # that one thread solves: fewer would spend their time in Python, more leave cores idle


@dataclass(frozen=True)
class Solution:
    """A pruned matrix (K, d) and its errors, E‖W x − Ŵ x̃‖² / E‖W x‖².

    x̃ is the input in the network as pruned so far, x that in the dense network where the moments know of it
    (``cross``), and else x̃ as well. ``magnitude_error`` is what magnitude pruning would have cost on the same
    inputs; ``inherited_error`` what the dense weights would, None without ``cross``; ``damping`` is λ
    relative to mean(diag H), as it was finally used.
    """

    matrix: Tensor
    relative_error: float
    magnitude_error: float
    inherited_error: float | None
    damping: float


def solve(
    weight: Tensor, moments: Moments, settings: PruneSettings, name: str = "layer", world: World = ALONE
) -> Solution:
    """Prune ``weight`` (K, d) by SparseGPT towards the dense target, and refit it, as the settings have it.

    For N:M the rows know nothing of each other: threads and processes share them, always in the same blocks,
    and all processes return the whole. Columns that are never active (H_jj = 0) cannot matter: their weights
    become 0.

    Raises:
        NumericsError: The Hessian cannot be damped enough; the message names the layer.
    """
    moments = _tamed(moments)
    factor = _factor(moments.hessian, settings.damping, name, world)
    size = _ROWS if isinstance(settings.pattern, NM) and weight.device.type == "cpu" else len(weight)
    blocks = spans(len(weight), size)
    own_blocks = blocks[world.share(len(blocks))]

    def solve_block(rows: slice) -> tuple[Tensor, Tensor]:
        cross = None if moments.cross is None else moments.cross[rows]
        return _solve_rows(weight[rows], cross, moments.hessian, factor, settings, name)

    solved = each(solve_block, own_blocks, weight.device)
    matrix, terms = torch.zeros_like(weight), torch.zeros(4, dtype=weight.dtype, device=weight.device)
    for rows, (block, sums) in zip(own_blocks, solved):
        matrix[rows] = block
        terms += sums
    world.add_up([matrix, terms])
    own, overlap, sparse, baseline = terms.tolist()
    energy, inherited = own, 0.0
    if moments.energy is not None:
        energy = moments.energy
        inherited = max(0.0, energy - 2 * overlap + own)
    return Solution(
        matrix=matrix,
        relative_error=max(0.0, inherited + sparse) / (energy or 1.0),
        magnitude_error=max(0.0, inherited + baseline) / (energy or 1.0),
        inherited_error=None if moments.energy is None else inherited / (energy or 1.0),
        damping=factor.damping,
    )


def _tamed(moments: Moments) -> Moments:
    """Scale huge or tiny moments by a power of four, which changes no weight and no error: squares would overflow."""
    mean = float(moments.hessian.diagonal().double().mean())
    if not mean or 1 / _TAME <= mean <= _TAME:
        return moments
    scale = 4.0 ** -(math.frexp(mean)[1] // 2)
    return replace(
        moments,
        hessian=moments.hessian * scale,
        cross=None if moments.cross is None else moments.cross * scale,
        energy=None if moments.energy is None else moments.energy * scale,
    )


def _factor(hessian: Tensor, damping: float, name: str, world: World) -> Factor:
    """Factor H once for all processes on one CPU, whose cores the others leave alone; GPUs each do it themselves."""
    if world.size == 1 or hessian.device.type != "cpu":
        return inverse_factor(hessian, damping, name)
    if world.rank == 0:
        factor = inverse_factor(hessian, damping, name)
    else:
        row = hessian[0]
        factor = Factor(torch.empty_like(hessian), torch.empty_like(row), 0.0, torch.empty_like(row, dtype=torch.bool))
    used = torch.tensor([factor.damping], dtype=torch.float64)
    world.spread([factor.upper, factor.shift, factor.dead, used])
    return replace(factor, damping=float(used))


def _solve_rows(
    weight: Tensor, cross: Tensor | None, hessian: Tensor, factor: Factor, settings: PruneSettings, name: str
) -> tuple[Tensor, Tensor]:
    """Prune some rows of a layer.

    Minimising ‖W x − Ŵ x̃‖² + λ‖Ŵ − W‖² is minimising tr[(Ŵ − W*) H_λ (Ŵ − W*)ᵀ] with W* H_λ = C + λ W, which is
    W H_λ + α (C − W H) at α = 1.

    Args:
        weight: (rows, d).
        cross: C (rows, d) = E[(W x) x̃ᵀ].
        hessian: H (d, d).
        factor: That of H.
        settings: How to prune.
        name: The layer, for messages.

    Returns:
        The pruned rows, and four sums over rows, of which the errors are made: tr(W H Wᵀ), tr(W Cᵀ), and
        tr(Δ H Δᵀ) − 2 tr(Δ (C − W H)ᵀ) for Δ = Ŵ − W by SparseGPT and by magnitude.
    """
    dense = weight.masked_fill(factor.dead, 0)
    product = dense @ hessian
    gap = torch.zeros_like(product) if cross is None else cross - product
    target = dense
    if cross is not None and settings.alpha:
        half = torch.linalg.solve_triangular(factor.upper.T, settings.alpha * gap, upper=False, left=False)
        target = dense + torch.linalg.solve_triangular(factor.upper, half, upper=True, left=False)
    sparse = sparsegpt(target, factor.upper, settings.pattern, settings.block_size)
    if settings.refit:
        goal = product + settings.alpha * gap + dense * factor.shift
        sparse, residual = refit(sparse, goal, hessian, factor.shift, name)
        sparse_product = goal - residual - sparse * factor.shift
    else:
        sparse_product = sparse @ hessian
    baseline = magnitude(dense, settings.pattern)
    changed = [(sparse, sparse_product), (baseline, baseline @ hessian)]
    terms = [
        (dense * product).sum(),
        (dense * (product + gap)).sum(),
        *(((after - dense) * (image - product - 2 * gap)).sum() for after, image in changed),
    ]
    return sparse, torch.stack(terms)
