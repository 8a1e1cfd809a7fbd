"""Masks by ADMM: slower than SparseGPT's greedy masks, with clearly smaller errors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparsegpt_core.execution import each
from sparsegpt_core.linalg import Factor, Hessian, Inverse
from sparsegpt_core.patterns import Pattern
from sparsegpt_core.solvers.masks import project

__all__ = ["Resolvents", "search_by_admm"]

# In the units below, A⁻¹ has a diagonal of ones in every layer, so the same ρ suit all layers: measured on 288 to 4608
# columns. With ρ < 1, uncorrelated inputs (A = I) would not converge. ρ grows in few steps, because each value needs an
# inverse. In wide layers one value is nearly as good, and takes a third of the time.
_MAX_NARROW_COLUMNS = 1152
_RHOS, _ITERATIONS_PER_RHO = (1.0, 1.6, 2.5, 4.0), 5
_WIDE_RHOS, _WIDE_ITERATIONS_PER_RHO = (1.5,), 10


@dataclass(frozen=True)
class Resolvents:
    """ADMM's inverses of a layer's Hessian, shared by all of its rows. A is S⁻¹ H_λ S⁻¹."""

    scale: Tensor
    """S (d,) = diag(H_λ⁻¹)^−½."""
    rhos: tuple[float, ...]
    """The values of ρ, in the order of their use."""
    inverses: tuple[Tensor | Inverse, ...]
    """ρ (A + ρ I)⁻¹ (d, d) for each ρ."""
    iterations: int
    """ADMM's iterations for each ρ."""

    @classmethod
    def of(cls, hessian: Hessian, factor: Factor) -> Resolvents:
        """Compute them for H (d, d) and its factor, with one thread for each ρ."""
        scale = factor.upper.inverse_diagonal().rsqrt()
        normalised, shift = hessian.normalised(scale), factor.shift / scale.square()
        narrow = hessian.columns <= _MAX_NARROW_COLUMNS
        rhos, iterations = (_RHOS, _ITERATIONS_PER_RHO) if narrow else (_WIDE_RHOS, _WIDE_ITERATIONS_PER_RHO)
        inverses = each(lambda rho: normalised.resolvent(shift, rho), rhos, scale.device)
        return cls(scale, rhos, tuple(inverses), iterations)


def search_by_admm(target: Tensor, resolvents: Resolvents, pattern: Pattern) -> Tensor:
    """Prune towards ``target`` by the alternating direction method of multipliers.

    Minimises tr[(Ŵ − W*) H_λ (Ŵ − W*)ᵀ] over the weights that obey ``pattern``, as ALPS does (Meng et al., 2024),
    but in the metric of the Optimal Brain Surgeon: in units of S = diag(H_λ⁻¹)^−½, where a weight's square is its
    saliency w² / [H_λ⁻¹]_jj. Let B = W* S, A = S⁻¹ H_λ S⁻¹, P the projection on the pattern, which keeps the largest
    magnitudes, and V = ρ U the multipliers. ADMM repeats

        Θ = (B A + ρ (Z − U)) (A + ρ I)⁻¹ = B + (Z − U − B) ρ (A + ρ I)⁻¹,
        Z = P(Θ + U),  U ← U + Θ − Z,

    and starts from Z = P(B) and U = 0. ρ follows a fixed schedule, so for N:M the rows are independent.

    Args:
        target: W* (K, d).
        resolvents: The inverses of the layer's Hessian.
        pattern: The pattern of zeros; for N:M d must be a multiple of M.

    Returns:
        Z S⁻¹ (K, d), exactly zero where pruned. The kept weights are approximate until
        :func:`~sparsegpt_core.solvers.refit.refit_weights` fits them.
    """
    goal = target * resolvents.scale  # B (K, d)
    # Z and U, both (K, d).
    sparse, multipliers = project(goal, pattern), torch.zeros_like(goal)
    last = resolvents.rhos[0]
    for rho, inverse in zip(resolvents.rhos, resolvents.inverses):
        multipliers *= last / rho  # V = ρ U does not change with ρ
        last = rho
        for _ in range(resolvents.iterations):
            # Θ + U = B + U + (Z − U − B) ρ (A + ρ I)⁻¹: (K, d) @ (d, d) -> (K, d)
            point = ((sparse - multipliers - goal) @ inverse).add_(goal).add_(multipliers)
            sparse = project(point, pattern)
            multipliers = point.sub_(sparse)
    return sparse / resolvents.scale
