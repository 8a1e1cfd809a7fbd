"""Prune some rows of a layer: by every mask and target that the settings leave open, each row keeping its best."""

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
    """Some rows of the dense weight W (rows, d), and what moments know of them.

    ``product`` is W H, ``gap`` C − W H: what the dense outputs have more to do with x̃ than those of W have.
    """

    weight: Tensor
    hessian: Hessian
    product: Tensor
    gap: Tensor

    @classmethod
    def of(cls, weight: Tensor, moments: Moments, rows: slice) -> Rows:
        """Take ``rows`` of a layer's weight (K, d) and moments."""
        product = weight[rows] @ moments.hessian
        gap = torch.zeros_like(product) if moments.cross is None else moments.cross[rows] - product
        return cls(weight[rows], moments.hessian, product, gap)

    def goal(self, alpha: float | Tensor, shift: Tensor) -> Tensor:
        """W* H_λ, which is W H_λ + α (C − W H)."""
        return self.product + alpha * self.gap + self.weight * shift

    def losses(self, sparse: Tensor, image: Tensor) -> Tensor:
        """E‖W x − Ŵ x̃‖² of every row (rows,), less what W itself would leave, for Ŵ and its ``image`` Ŵ H."""
        return ((sparse - self.weight) * (image - self.product - 2 * self.gap)).sum(dim=1)


@dataclass(frozen=True)
class Solver:
    """What pruning a layer's rows needs beside them."""

    factor: Factor
    resolvents: Resolvents | None
    settings: PruneSettings
    name: str

    def prune(self, rows: Rows, choice: Choice) -> tuple[Tensor, Tensor]:
        """Minimise ‖W x − Ŵ x̃‖² + λ‖Ŵ − W‖² = tr[(Ŵ − W*) H_λ (Ŵ − W*)ᵀ] + …; return Ŵ and Ŵ H."""
        mask, alpha = choice
        upper, settings = self.factor.upper, self.settings
        target = rows.weight
        if alpha:
            target = target + upper.solve(alpha * rows.gap)
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
        """Return the best Ŵ on the mask of ``sparse``, and Ŵ H."""
        shift = self.factor.shift
        goal = rows.goal(alpha, shift)
        sparse, residual = refit_weights(sparse, goal, rows.hessian, shift, self.name, iterations=iterations)
        return sparse, goal - residual - sparse * shift

    def choose(
        self, fitted: Rows, held_out: Rows, everything: Rows, choices: Sequence[Choice]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Prune by every choice, and keep for every row what does best on the held-out moments.

        Rows of an unstructured layer share a quota and choose together.

        Returns:
            Ŵ, refitted to everything, Ŵ H, the index of the choice (rows,), and its loss as it was held out (rows,).
        """
        candidates = [self.prune(fitted, choice)[0] for choice in choices]
        losses = torch.stack([held_out.losses(sparse, sparse @ held_out.hessian) for sparse in candidates])
        if not isinstance(self.settings.pattern, NM):
            losses = losses.mean(dim=1, keepdim=True).expand_as(losses)
        least, chosen = losses.min(dim=0)
        sparse = torch.stack(candidates)[chosen, torch.arange(len(chosen), device=chosen.device)]
        if not self.settings.refit:
            return sparse, sparse @ everything.hessian, chosen, least
        alphas = sparse.new_tensor([alpha for _, alpha in choices])[chosen, None]
        return *self.refit(everything, sparse, alphas), chosen, least
