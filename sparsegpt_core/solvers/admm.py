"""Masks by ADMM: slower than SparseGPT's greedy ones, and a good deal better."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparsegpt_core.execution import each
from sparsegpt_core.linalg import Factor, Hessian, LowRankInverse
from sparsegpt_core.patterns import Pattern
from sparsegpt_core.solvers.masks import project

__all__ = ["Resolvents", "search_by_admm"]

# In the units below A⁻¹ has a diagonal of ones whatever the layer, so that the same ρ suit all: measured on layers of
# 288 to 4608 columns. Below 1 uncorrelated inputs (A = I) would not settle. It grows in few steps, as each needs an
# inverse; in wide layers one is nearly as good, at a third of the time.
_NARROW_COLUMNS = 1152
_RHOS, _ITERATIONS = (1.0, 1.6, 2.5, 4.0), 5  # iterations for each ρ
_WIDE_RHOS, _WIDE_ITERATIONS = (1.5,), 10


@dataclass(frozen=True)
class Resolvents:
    """What ADMM needs of a layer's Hessian, shared by all of its rows.

    ``scale`` is S (d,) = diag(H_λ⁻¹)^−½; with A = S⁻¹ H_λ S⁻¹, ``inverses`` holds ρ (A + ρ I)⁻¹ (d, d) for each of
    ``rhos``, which ADMM takes ``iterations`` steps with.
    """

    scale: Tensor
    rhos: tuple[float, ...]
    inverses: tuple[Tensor | LowRankInverse, ...]
    iterations: int

    @classmethod
    def of(cls, hessian: Hessian, factor: Factor) -> Resolvents:
        """Compute them for H (d, d), of which ``factor`` is the factor, each ρ on a thread of its own."""
        scale = factor.upper.inverse_diagonal().rsqrt()
        normalised, shift = hessian.normalised(scale), factor.shift / scale.square()
        narrow = hessian.columns <= _NARROW_COLUMNS
        rhos, iterations = (_RHOS, _ITERATIONS) if narrow else (_WIDE_RHOS, _WIDE_ITERATIONS)
        inverses = each(lambda rho: normalised.resolvent(shift, rho), rhos, scale.device)
        return cls(scale, rhos, tuple(inverses), iterations)


def search_by_admm(target: Tensor, resolvents: Resolvents, pattern: Pattern) -> Tensor:
    """Prune towards ``target`` by the alternating direction method of multipliers.

    Minimises tr[(Ŵ − W*) H_λ (Ŵ − W*)ᵀ] over the weights that obey ``pattern``, as ALPS does (Meng et al., 2024),
    but in the metric of the Optimal Brain Surgeon: in units of S = diag(H_λ⁻¹)^−½, where a weight's square is its
    saliency w² / [H_λ⁻¹]_jj. With B = W* S, A = S⁻¹ H_λ S⁻¹, P the projection on the pattern that keeps the largest,
    and the multipliers V = ρ U, it repeats

        Θ = (B A + ρ (Z − U)) (A + ρ I)⁻¹ = B + (Z − U − B) ρ (A + ρ I)⁻¹,
        Z = P(Θ + U),  U ← U + Θ − Z,

    from Z = P(B) and U = 0 on. ρ follows a fixed schedule, so that rows know nothing of each other for N:M.

    Args:
        target: W* (K, d).
        resolvents: Those of the layer's Hessian.
        pattern: What to prune to; d must be a multiple of M for N:M.

    Returns:
        Z S⁻¹ (K, d), exactly zero where pruned;
        :func:`~sparsegpt_core.solvers.refit.refit_weights` makes the rest exact.
    """
    goal = target * resolvents.scale
    sparse, multipliers = project(goal, pattern), torch.zeros_like(goal)
    last = resolvents.rhos[0]
    for rho, inverse in zip(resolvents.rhos, resolvents.inverses):
        multipliers *= last / rho
        last = rho
        for _ in range(resolvents.iterations):
            point = ((sparse - multipliers - goal) @ inverse).add_(goal).add_(multipliers)
            sparse = project(point, pattern)
            multipliers = point.sub_(sparse)
    return sparse / resolvents.scale
