"""Prune one layer's matrix, and say what that does to its output."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sparsegpt_core.hessian import inverse_factor, quadratic_error
from sparsegpt_core.magnitude import magnitude
from sparsegpt_core.settings import PruneSettings
from sparsegpt_core.sparsegpt import sparsegpt

__all__ = ["Solution", "solve"]


@dataclass(frozen=True)
class Solution:
    """A pruned matrix (K, d) and its errors, tr(Δ H Δᵀ) / tr(W H Wᵀ) with Δ = Ŵ − W.

    ``magnitude_error`` is what magnitude pruning would have cost on the same inputs; ``damping`` is λ
    relative to mean(diag H), as it was finally used.
    """

    matrix: Tensor
    relative_error: float
    magnitude_error: float
    damping: float


def solve(weight: Tensor, hessian: Tensor, settings: PruneSettings, name: str = "layer") -> Solution:
    """Prune ``weight`` (K, d) by SparseGPT, given the Hessian (d, d) of its inputs.

    Columns that are never active (H_jj = 0) cannot matter, so their weights become 0.

    Raises:
        NumericsError: The Hessian cannot be damped enough; the message names the layer.
    """
    factor = inverse_factor(hessian, settings.damping, name)
    sparse = sparsegpt(weight.masked_fill(factor.dead, 0), factor.upper, settings.pattern, settings.block_size)
    energy = quadratic_error(weight, hessian) or 1.0
    return Solution(
        matrix=sparse,
        relative_error=quadratic_error(sparse - weight, hessian) / energy,
        magnitude_error=quadratic_error(magnitude(weight, settings.pattern) - weight, hessian) / energy,
        damping=factor.damping,
    )
