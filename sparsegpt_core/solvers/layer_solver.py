"""Prune one layer's matrix, and say what that does to its output."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import torch
from torch import Tensor

from sparsegpt_core.execution import ALONE, World, each, spans
from sparsegpt_core.linalg import Factor, Hessian
from sparsegpt_core.network import Int8Weight
from sparsegpt_core.patterns import NM
from sparsegpt_core.settings import PruneSettings
from sparsegpt_core.solvers.admm import Resolvents
from sparsegpt_core.solvers.int8_rounding import grid_scales, quantise
from sparsegpt_core.solvers.masks import magnitude
from sparsegpt_core.solvers.row_solver import Choice, Rows, Solver
from sparsegpt_core.statistics import Moments, pooled

__all__ = ["Solution", "solve"]

_TAME = 2.0**20  # mean(diag H) from its inverse up to this needs no scaling
_ROWS = 256  # that one thread solves: fewer would spend their time in Python, more leave cores idle


@dataclass(frozen=True)
class Solution:
    """A pruned matrix (K, d) and its errors, E‖W x − Ŵ x̃ − shift‖² / E‖W x‖².

    x̃ is the input in the network as pruned so far, x that in the dense network where the moments know of it
    (``cross``), and else x̃ as well. ``shift`` (K,) is what to add to the outputs, None where the moments are not
    centred. ``magnitude_error`` is what magnitude pruning would have cost on the same inputs, ``inherited_error``
    what the dense weights would, None without ``cross``, each with its best shift. ``sensitivity`` is what pruning
    adds to the error of held-out samples, without those in the fit; None where none were. ``damping`` is λ relative
    to mean(diag H), as it was finally used; ``choices`` counts the rows that took each mask and α; ``integers`` is
    the matrix on an INT8 grid, None where that is not asked for.
    """

    matrix: Tensor
    shift: Tensor | None
    relative_error: float
    magnitude_error: float
    inherited_error: float | None
    sensitivity: float | None
    damping: float
    choices: dict[Choice, int]
    integers: Int8Weight | None = None


def solve(
    weight: Tensor,
    moments: Moments,
    settings: PruneSettings,
    name: str = "layer",
    world: World = ALONE,
    held_out: Moments | None = None,
    *,
    int8_weights: bool = False,
) -> Solution:
    """Prune ``weight`` (K, d) towards the dense target, and refit it, as the settings have it.

    Where they leave a choice, every row takes what does best on the held-out moments, and is then refitted to all.

    For N:M the rows know nothing of each other: threads and processes share them, always in the same blocks,
    and all processes return the whole. Columns that are never active (H_jj = 0) cannot matter: their weights
    become 0.

    Raises:
        NumericsError: The Hessian cannot be damped enough; the message names the layer.
    """
    root = _taming_root(moments.hessian)
    if root != 1:
        moments, held_out = moments.scaled(root), held_out and held_out.scaled(root)
    damping = settings.damping_for(moments.used, weight.shape[1])
    factor = moments.hessian.factor(damping, name, world)
    alphas = settings.alphas if moments.cross is not None else (0.0,)
    masks = settings.masks_for(moments.hessian.equivalent_columns)
    choices = list(product(masks, alphas))
    resolvents = Resolvents.of(moments.hessian, factor) if "admm" in masks else None
    solver = Solver(factor, resolvents, settings, name)
    everything = moments if held_out is None else pooled(moments, held_out)
    dense = weight.masked_fill(factor.dead, 0)

    def solve_block(rows: slice) -> tuple[Tensor, Tensor]:
        own = Rows.of(dense, everything, rows)
        if held_out is None:
            sparse, image = solver.prune(own, choices[0])
            chosen, losses = sparse.new_zeros(len(sparse), dtype=torch.long), sparse.new_zeros(1)
        else:
            fitted, judge = Rows.of(dense, moments, rows), Rows.of(dense, held_out, rows)
            sparse, image, chosen, losses = solver.choose(fitted, judge, own, choices)
        counts = torch.bincount(chosen, minlength=len(choices))
        baseline = magnitude(own.weight, settings.pattern)
        terms = [
            (own.weight * own.product).sum(),
            (own.weight * (own.product + own.gap)).sum(),
            own.losses(sparse, image).sum(),
            own.losses(baseline, baseline @ own.hessian).sum(),
            losses.sum(),
        ]
        return sparse, torch.cat([torch.stack(terms), counts.to(sparse.dtype)])

    size = _ROWS if isinstance(settings.pattern, NM) and weight.device.type == "cpu" else len(weight)
    blocks = spans(len(weight), size)
    own_blocks = blocks[world.share(len(blocks))]
    matrix, terms = torch.zeros_like(weight), weight.new_zeros(5 + len(choices))
    for rows, (block, sums) in zip(own_blocks, each(solve_block, own_blocks, weight.device)):
        matrix[rows] = block
        terms += sums
    world.add_up([matrix, terms])
    solution = _describe(dense, matrix, everything, factor.damping, terms.tolist(), choices)
    if int8_weights:
        solution = replace(solution, integers=_round(matrix, everything, factor, blocks, root, world))
    shift = None if solution.shift is None else solution.shift / root
    return replace(solution, shift=shift, sensitivity=None if held_out is None else solution.sensitivity)


def _round(
    matrix: Tensor, moments: Moments, factor: Factor, blocks: Sequence[slice], root: float, world: World
) -> Int8Weight:
    """Round a refitted matrix (K, d) to INT8, each block of rows in one piece."""
    importance = moments.hessian.diagonal() + factor.shift

    def round_block(rows: slice) -> tuple[Tensor, Tensor]:
        scales = grid_scales(matrix[rows], importance)
        return quantise(matrix[rows], factor.upper, scales) / scales[:, None], scales

    own = blocks[world.share(len(blocks))]
    values, scales = torch.zeros_like(matrix), matrix.new_zeros(len(matrix))
    for rows, found in zip(own, each(round_block, own, matrix.device)):
        values[rows], scales[rows] = found
    world.add_up([values, scales])
    values.round_()
    shift = torch.zeros_like(scales)
    if moments.mean is not None:  # H is centred and knows nothing of the mean
        shift = (matrix - values * scales[:, None]) @ moments.mean / root
    return Int8Weight(values.to(torch.int8), scales, shift)


def _taming_root(hessian: Hessian) -> float:
    """The power of two to scale huge or tiny inputs by, which changes no weight: squares of H would overflow."""
    mean = float(hessian.diagonal().double().mean())
    return 1.0 if not mean or 1 / _TAME <= mean <= _TAME else 2.0 ** -(math.frexp(mean)[1] // 2)


def _describe(
    dense: Tensor, matrix: Tensor, moments: Moments, damping: float, terms: list[float], choices: list[Choice]
) -> Solution:
    own, overlap, sparse, baseline, judged, *counts = terms
    energy, inherited, shift = own, 0.0, None
    if moments.energy is not None:
        energy = moments.energy
        inherited = max(0.0, energy - 2 * overlap + own)
    whole = energy
    if moments.mean is not None:
        outputs = dense @ moments.mean if moments.output_mean is None else moments.output_mean
        shift = outputs - matrix @ moments.mean
        whole += float(outputs.square().sum())
    whole = whole or 1.0
    return Solution(
        matrix=matrix,
        shift=shift,
        relative_error=max(0.0, inherited + sparse) / whole,
        magnitude_error=max(0.0, inherited + baseline) / whole,
        inherited_error=None if moments.energy is None else inherited / whole,
        sensitivity=max(0.0, judged) / whole,
        damping=damping,
        choices={choice: int(count) for choice, count in zip(choices, counts)},
    )
