"""Gives the outputs of a layer that stays dense the mean and variance that they have in the dense network."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparsegpt_core.statistics import OutputMoments

__all__ = ["OutputMatch", "match_outputs"]

_MAX_GROWTH = 2.0  # of a channel's weights
_MIN_VARIANCE = 1e-6  # relative to the mean's square; below it a variance is rounding


@dataclass(frozen=True)
class OutputMatch:
    """What to change of a layer, and its errors as :class:`~sparsegpt_core.pruning.LayerResult` defines them."""

    growth: Tensor
    """(K,), to multiply the rows of the weight by."""
    shift: Tensor | None
    """(K,), to add to the outputs; None where nothing can."""
    relative_error: float
    """The error after it."""
    inherited_error: float
    """The error of the unchanged weight, with its best shift if there is one."""


def match_outputs(moments: OutputMoments, *, shifts: bool, variance: bool) -> OutputMatch:
    """Match mean and variance of each output channel to those in the dense network.

    The factor of channel k is √(Var y_k / Var ŷ_k), the shift E y_k − factor · E ŷ_k (docs/decisions/0040). Without a
    shift the factor matches the energies E y_k² and E ŷ_k².

    Args:
        moments: Those of the layer's outputs.
        shifts: Whether the outputs can be shifted.
        variance: Whether to scale the weights.

    Example:
        >>> import torch
        >>> one = torch.ones(1, dtype=torch.float64)
        >>> moments = OutputMoments(2 * one, 8 * one, one, 2 * one, 4 * one, positions=9)
        >>> match = match_outputs(moments, shifts=True, variance=True)
        >>> match.growth.item(), match.shift.item(), match.relative_error
        (2.0, 0.0, 0.0)
    """
    energy = moments.energy.sum()
    if shifts:
        moments = moments.centred()
    growth = torch.ones_like(moments.mean)
    if variance:
        varies = moments.sparse_energy > _MIN_VARIANCE * moments.sparse_mean.square()
        ratio = torch.where(varies, moments.energy / moments.sparse_energy, growth)
        growth = ratio.sqrt().clamp_max(_MAX_GROWTH)

    def error(factor: Tensor) -> float:  # E (y − factor · ŷ)²
        left = moments.energy - 2 * factor * moments.overlap + factor.square() * moments.sparse_energy
        return float(left.clamp_min(0).sum() / energy) if energy > 0 else 0.0

    shift = moments.mean - growth * moments.sparse_mean if shifts else None
    return OutputMatch(growth, shift, error(growth), error(torch.ones_like(growth)))
