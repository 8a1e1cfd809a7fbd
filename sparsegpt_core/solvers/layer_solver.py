"""Prune one layer's weight matrix, and measure the effect on the layer's output."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from sparsegpt_core.execution import ALONE, World, each, spans, sum_precision
from sparsegpt_core.linalg import Factor, Hessian
from sparsegpt_core.network import Int8Weight
from sparsegpt_core.patterns import NM, Pattern
from sparsegpt_core.settings import PruneSettings
from sparsegpt_core.solvers.admm import Resolvents
from sparsegpt_core.solvers.int8_rounding import grid_scales, quantise
from sparsegpt_core.solvers.masks import magnitude
from sparsegpt_core.solvers.row_solver import Choice, Rows, Solver
from sparsegpt_core.statistics import Moments, pooled

__all__ = ["Solution", "solve"]

_MAX_UNSCALED_MEAN_DIAGONAL = 2.0**20  # of H; mean(diag H) from the inverse of this up to this needs no scaling
_MAX_GROWTH = 2.0  # of a layer's weights, where the variance of its outputs is kept
_ROWS_PER_BLOCK = 256  # fewer would spend a thread's time in Python, more would leave cores idle
_MIN_ROWS_PER_BLOCK, _BLOCK_BYTES = 32, 4 << 20  # where a block is worked on as a whole, it should fit into a cache


@dataclass(frozen=True)
class Solution:
    """A pruned weight matrix and its errors.

    An error is E‖W x − Ŵ x̃ − shift‖² / E‖W x‖². x̃ is the layer's input in the network pruned so far. x is its input
    in the dense network where the moments have a ``cross``, and x̃ elsewhere.
    """

    matrix: Tensor
    """Ŵ (K, d), exactly zero where pruned."""
    shift: Tensor | None
    """(K,), to add to the outputs; None where the moments are not centred."""
    relative_error: float
    """The error of Ŵ."""
    magnitude_error: float
    """The error of magnitude pruning on the same inputs, with its own best shift."""
    inherited_error: float | None
    """The error of the dense weights W, with their best shift; None without ``cross``."""
    sensitivity: float | None
    """What pruning adds to the error on held-out samples, before they join the fit; None without held-out samples."""
    damping: float
    """The λ in use, relative to mean(diag H)."""
    wanted_damping: float
    """The λ that the settings ask for. ``damping`` is larger where H needs more to be positive definite."""
    choices: dict[Choice, int]
    """How many rows took each mask and α."""
    int8_weight: Int8Weight | None = None
    """Ŵ on an INT8 grid; None unless requested."""


class BlockSums(NamedTuple):
    """Sums over a block of rows: the terms of the layer's errors."""

    dense_energy: Tensor
    """tr(W H Wᵀ) = E‖W x̃‖²."""
    overlap: Tensor
    """tr(C Wᵀ), of the dense outputs W x with W x̃."""
    sparse_energy: Tensor
    """tr(Ŵ H Ŵᵀ) = E‖Ŵ x̃‖²."""
    sparse_loss: Tensor
    """E‖W x − Ŵ x̃‖² − E‖W x − W x̃‖²."""
    magnitude_loss: Tensor
    """The same for magnitude pruning."""
    held_out_loss: Tensor
    """The same for Ŵ before the last refit, on held-out samples; 0 without them."""
    choices: Tensor
    """(choices,), how many rows took each choice."""

    @classmethod
    def zeros(cls, like: Tensor, choices: int) -> BlockSums:
        """Return the sums over no row, on the device of ``like``; in float64, so that their order does not matter."""
        precision = sum_precision(like.device)
        shapes = [choices if field == "choices" else () for field in cls._fields]
        return cls(*(like.new_zeros(shape, dtype=precision) for shape in shapes))

    def add(self, block: BlockSums) -> None:
        """Add the sums of a block in place, field by field."""
        for total, part in zip(self, block):
            total.add_(part)


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
    """Prune a weight matrix towards the dense target, refit it and keep its outputs' variance, as the settings specify.

    Where the settings leave a choice of mask or α, every row takes the choice with the smallest loss on the held-out
    moments, and is then refitted to all samples. For N:M the rows are independent: threads and processes share them,
    always in the same blocks. Columns that are never active (H_jj = 0) do not affect the output, so their weights
    become 0.

    Args:
        weight: W (K, d).
        moments: Those of the samples to fit to.
        settings: Pattern, masks, α, damping, and whether to refit.
        name: The layer, for messages.
        world: The processes that share the rows. All of them return the whole solution.
        held_out: The moments of the held-out samples, if any.
        int8_weights: Whether to round the solution to INT8 as well.

    Raises:
        NumericsError: The Hessian is not positive definite even with the largest damping. The message names the layer.

    Example:
        >>> import torch
        >>> from sparsegpt_core.linalg import DenseHessian
        >>> _ = torch.manual_seed(0)
        >>> weight, x = torch.randn(8, 16), torch.randn(100, 16)
        >>> moments = Moments(DenseHessian(x.T @ x / 100), cross=None, energy=None, positions=100, used=100)
        >>> solution = solve(weight, moments, PruneSettings())
        >>> int((solution.matrix == 0).sum())  # 2:4
        64
        >>> solution.relative_error < solution.magnitude_error
        True
    """
    scale = _input_scale(moments.hessian)
    if scale != 1:
        moments, held_out = moments.scaled(scale), held_out and held_out.scaled(scale)
    masks = settings.masks_for(moments.hessian.equivalent_columns)
    blocks = spans(len(weight), _block_rows(weight, settings.pattern, masks))
    inherited_error = _inherited_error(weight, moments, blocks) if settings.damping is None else 0.0
    damping = settings.damping_for(moments.used, weight.shape[1], moments.samples or moments.used, inherited_error)
    factor = moments.hessian.factor(damping, name, world)
    alphas = settings.alphas if moments.cross is not None else (0.0,)
    choices = list(product(masks, alphas))
    resolvents = Resolvents.of(moments.hessian, factor) if "admm" in masks else None
    solver = Solver(factor, resolvents, settings, name)
    combined = moments if held_out is None else pooled(moments, held_out)
    dense = weight.masked_fill(factor.dead, 0)

    def solve_block(rows: slice) -> tuple[Tensor, BlockSums]:
        # The block's W, W H and C − W H, each (rows, d).
        block = Rows.of(dense, combined, rows)
        # Ŵ and Ŵ H (rows, d). With held-out samples, each row's best choice (rows,) and its loss (rows,).
        if held_out is None:
            sparse, sparse_hessian = solver.prune(block, choices[0])
            chosen, held_out_losses = sparse.new_zeros(len(sparse), dtype=torch.long), sparse.new_zeros(1)
        else:
            fitted, judge = Rows.of(dense, moments, rows), Rows.of(dense, held_out, rows)
            sparse, sparse_hessian, chosen, held_out_losses = solver.choose(fitted, judge, block, choices)
        # Magnitude pruning of the same rows, to compare with.
        baseline = magnitude(block.weight, settings.pattern)
        return sparse, BlockSums(
            dense_energy=(block.weight * block.weight_hessian).sum(),
            overlap=(block.weight * (block.weight_hessian + block.target_gap)).sum(),
            sparse_energy=(sparse * sparse_hessian).sum(),
            sparse_loss=block.losses(sparse, sparse_hessian).sum(),
            magnitude_loss=block.losses(baseline, baseline @ block.hessian).sum(),
            held_out_loss=held_out_losses.sum(),
            choices=torch.bincount(chosen, minlength=len(choices)),
        )

    own_blocks = blocks[world.share(len(blocks))]
    matrix, totals = torch.zeros_like(weight), BlockSums.zeros(weight, len(choices))
    for rows, (sparse, sums) in zip(own_blocks, each(solve_block, own_blocks, weight.device)):
        matrix[rows] = sparse
        totals.add(sums)
    world.add_up([matrix, *totals])

    # Of the layer as a whole: its energy E‖W x‖², the dense weights' error, and the shift of the outputs' means.
    energy, inherited, shift = float(totals.dense_energy), 0.0, None
    if combined.energy is not None:
        inherited = max(0.0, combined.energy - 2 * float(totals.overlap) + energy)
        energy = combined.energy
    error = max(0.0, inherited + float(totals.sparse_loss))
    if settings.variance and combined.energy is not None and max(alphas) > 0:
        growth, error = _variance_kept(energy, float(totals.sparse_energy), error)
        matrix *= growth
    if combined.mean is not None:
        outputs = dense @ combined.mean if combined.output_mean is None else combined.output_mean  # (K,)
        shift = (outputs - matrix @ combined.mean) / scale
        energy += float(outputs.square().sum())
    energy = energy or 1.0
    return Solution(
        matrix=matrix,
        shift=shift,
        relative_error=error / energy,
        magnitude_error=max(0.0, inherited + float(totals.magnitude_loss)) / energy,
        inherited_error=None if combined.energy is None else inherited / energy,
        sensitivity=None if held_out is None else max(0.0, float(totals.held_out_loss)) / energy,
        damping=factor.damping,
        wanted_damping=damping,
        choices={choice: int(count) for choice, count in zip(choices, totals.choices)},
        int8_weight=_round_to_int8(matrix, combined, factor, blocks, scale, world) if int8_weights else None,
    )


def _block_rows(weight: Tensor, pattern: Pattern, masks: tuple[str, ...]) -> int:
    """Return how many rows are solved together: the same for any number of threads and processes."""
    if not isinstance(pattern, NM) or weight.device.type != "cpu":
        return len(weight)
    if masks != ("admm",):  # the other masks go through the columns in Python, once for each block
        return _ROWS_PER_BLOCK
    return min(_ROWS_PER_BLOCK, max(_MIN_ROWS_PER_BLOCK, _BLOCK_BYTES // weight[0].nbytes))


def _inherited_error(weight: Tensor, moments: Moments, blocks: Sequence[slice]) -> float:
    """Return E‖W x − W x̃‖² / E‖W x‖², without the means where the moments are central; 0 without dense outputs."""
    if moments.cross is None or not moments.energy:
        return 0.0

    def difference(rows: slice) -> float:  # E‖W x̃‖² − 2 E (W x)ᵀ (W x̃) of a block
        block = Rows.of(weight, moments, rows)
        return -float((block.weight * (block.weight_hessian + 2 * block.target_gap)).sum())

    return max(0.0, moments.energy + sum(each(difference, blocks, weight.device))) / moments.energy


def _variance_kept(dense_energy: float, sparse_energy: float, error: float) -> tuple[float, float]:
    """Return the factor that gives Ŵ x̃ the energy of W x, and the error ‖W x − Ŵ x̃‖² after it.

    A least-squares fit to inputs with noise has outputs of less energy, E‖Ŵ x̃‖² = E‖W x‖² − error. The layers after it
    were trained on outputs of full size, and what each layer takes off adds up over the layers.
    """
    if not sparse_energy:
        return 1.0, error
    growth = min(math.sqrt(dense_energy / sparse_energy), _MAX_GROWTH)
    # E‖W x‖² − 2 s E (W x)ᵀ (Ŵ x̃) + s² E‖Ŵ x̃‖², where the middle term follows from the error before.
    return growth, max(0.0, growth * error + (1 - growth) * (dense_energy - growth * sparse_energy))


def _round_to_int8(
    matrix: Tensor, moments: Moments, factor: Factor, blocks: Sequence[slice], scale: float, world: World
) -> Int8Weight:
    """Round a refitted matrix (K, d) to INT8, by the same blocks of rows."""
    importance = moments.hessian.diagonal() + factor.shift  # diag(H_λ) (d,)

    def round_block(rows: slice) -> tuple[Tensor, Tensor]:
        scales = grid_scales(matrix[rows], importance)  # (rows,)
        return quantise(matrix[rows], factor.upper, scales) / scales[:, None], scales

    own_blocks = blocks[world.share(len(blocks))]
    values, scales = torch.zeros_like(matrix), matrix.new_zeros(len(matrix))
    for rows, rounded in zip(own_blocks, each(round_block, own_blocks, matrix.device)):
        values[rows], scales[rows] = rounded
    world.add_up([values, scales])
    values.round_()
    shift = torch.zeros_like(scales)
    if moments.mean is not None:  # H is centred, so the rounding ignored the mean
        shift = (matrix - values * scales[:, None]) @ moments.mean / scale
    return Int8Weight(values.to(torch.int8), scales, shift)


def _input_scale(hessian: Hessian) -> float:
    """Return the power of two to scale huge or tiny inputs by; 1 for all others.

    It changes no weight. Without it, products of entries of H could overflow.
    """
    mean = float(hessian.diagonal().double().mean())
    if not mean or 1 / _MAX_UNSCALED_MEAN_DIAGONAL <= mean <= _MAX_UNSCALED_MEAN_DIAGONAL:
        return 1.0
    return 2.0 ** -(math.frexp(mean)[1] // 2)
