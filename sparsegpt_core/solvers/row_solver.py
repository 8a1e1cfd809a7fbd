"""Prune some rows of a layer by every mask and α that the settings leave open; each row keeps its best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sparsegpt_core.linalg import Factor, Hessian
from sparsegpt_core.patterns import NM
from sparsegpt_core.settings import PruneSettings
from sparsegpt_core.solvers.admm import Resolvents, search_by_admm
from sparsegpt_core.solvers.exact_groups import prune_with_exact_groups
from sparsegpt_core.solvers.refit import AFTER_ADMM, refit_weights
from sparsegpt_core.solvers.sparsegpt import prune_with_sparsegpt
from sparsegpt_core.statistics import Moments

__all__ = ["Choice", "Rows", "Solver"]

Choice = tuple[str, float]
"""A way to find the mask, and α."""


class Rows(NamedTuple):
    """Some rows of the dense weight W, with the moments of the layer's inputs."""

    weight: Tensor
    """W (rows, d)."""
    hessian: Hessian
    """H (d, d)."""
    weight_hessian: Tensor
    """W H (rows, d)."""
    target_gap: Tensor
    """C − W H (rows, d): the cross moment C of the dense outputs, less that of W x̃."""

    @classmethod
    def of(cls, weight: Tensor, moments: Moments, rows: slice) -> Rows:
        """Take ``rows`` of a layer's weight (K, d) and moments."""
        weight_hessian = weight[rows] @ moments.hessian
        gap = torch.zeros_like(weight_hessian) if moments.cross is None else moments.cross[rows] - weight_hessian
        return cls(weight[rows], moments.hessian, weight_hessian, gap)

    def goal(self, alpha: float | Tensor, shift: Tensor) -> Tensor:
        """Return W* H_λ = W H_λ + α (C − W H) (rows, d)."""
        return self.weight_hessian + alpha * self.target_gap + self.weight * shift

    def losses(self, sparse: Tensor, sparse_hessian: Tensor) -> Tensor:
        """Return E‖W x − Ŵ x̃‖² − E‖W x − W x̃‖² of every row (rows,), for Ŵ and Ŵ H.

        With Δ = Ŵ − W that is Δ H Δᵀ − 2 Δ (C − W H)ᵀ, row by row.
        """
        return ((sparse - self.weight) * (sparse_hessian - self.weight_hessian - 2 * self.target_gap)).sum(dim=1)


@dataclass(frozen=True)
class Solver:
    """What all rows of a layer share."""

    factor: Factor
    """The factor of the damped Hessian."""
    resolvents: Resolvents | None
    """ADMM's inverses; None where no mask is found by ADMM."""
    settings: PruneSettings
    """The pattern, the block size, and whether to refit."""
    name: str
    """The layer, for messages."""

    def prune(self, rows: Rows, choice: Choice) -> tuple[Tensor, Tensor]:
        """Prune towards W* = W + α (C − W H) H_λ⁻¹, and refit if the settings say so.

        W* minimises E‖W x − Ŵ x̃‖² + λ‖Ŵ − W‖² = tr[(Ŵ − W*) H_λ (Ŵ − W*)ᵀ] + const for α = 1.

        Returns:
            Ŵ and Ŵ H, both (rows, d).
        """
        mask, alpha = choice
        upper, settings = self.factor.upper, self.settings
        target = rows.weight
        if alpha:
            target = target + upper.solve(alpha * rows.target_gap)  # (rows, d) @ (d, d)⁻¹ -> (rows, d)
        if mask == "admm" and self.resolvents is not None:
            sparse = search_by_admm(target, self.resolvents, settings.pattern)
        elif mask == "exact" and isinstance(settings.pattern, NM):
            sparse = prune_with_exact_groups(target, upper, settings.pattern, settings.block_size)
        else:
            sparse = prune_with_sparsegpt(target, upper, settings.pattern, settings.block_size)
        if not settings.refit:
            return sparse, sparse @ rows.hessian
        return self.refit(rows, sparse, alpha, AFTER_ADMM if mask == "admm" else None)

    def refit(
        self, rows: Rows, sparse: Tensor, alpha: float | Tensor, iterations: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the best Ŵ on the mask of ``sparse``, and Ŵ H, both (rows, d)."""
        shift = self.factor.shift
        goal = rows.goal(alpha, shift)
        sparse, residual = refit_weights(sparse, goal, rows.hessian, shift, self.name, iterations=iterations)
        # The residual is W* H_λ − Ŵ H_λ, so Ŵ H follows without another product.
        return sparse, goal - residual - sparse * shift

    def choose(
        self, fitted: Rows, held_out: Rows, combined: Rows, choices: Sequence[Choice]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Prune by every choice, and keep for each row the one with the smallest loss on held-out samples.

        The rows of an unstructured layer share a quota of zeros, so they take one choice together.

        Args:
            fitted: The rows with the moments to fit to.
            held_out: The same rows with the held-out moments.
            combined: The same rows with the moments of all samples, for the last refit.
            choices: The ways to prune.

        Returns:
            Ŵ (rows, d), refitted to all samples, Ŵ H (rows, d), the index of each row's choice (rows,), and its
            held-out loss (rows,).
        """
        candidates = [self.prune(fitted, choice)[0] for choice in choices]
        losses = torch.stack([held_out.losses(sparse, sparse @ held_out.hessian) for sparse in candidates])
        if not isinstance(self.settings.pattern, NM):
            losses = losses.mean(dim=1, keepdim=True).expand_as(losses)
        smallest, chosen = losses.min(dim=0)  # (choices, rows) -> (rows,)
        # (choices, rows, d) -> (rows, d)
        sparse = torch.stack(candidates)[chosen, torch.arange(len(chosen), device=chosen.device)]
        if not self.settings.refit:
            return sparse, sparse @ combined.hessian, chosen, smallest
        alphas = sparse.new_tensor([alpha for _, alpha in choices])[chosen, None]  # (rows, 1)
        return *self.refit(combined, sparse, alphas), chosen, smallest
