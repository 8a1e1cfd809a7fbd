"""H of far fewer positions than columns, kept as its root R: what costs d³ for a full H then costs r² d."""

from __future__ import annotations

from collections.abc import Callable
from typing import Union

import torch
from torch import Tensor

from sparsegpt_core.execution import spans

__all__ = ["Gram", "LowRank", "LowRankInverse", "LowRankUpper", "Upper", "width"]

_BLOCK = 256  # columns factorised at a time, or a quarter of the rank


class LowRank:
    """H = RᵀR (d, d), of which only R is kept; stands where an H is multiplied from the left.

    Args:
        root: R (r, d).
    """

    def __init__(self, root: Tensor) -> None:
        self.root = root
        self.device = root.device
        self.dtype = root.dtype

    def __len__(self) -> int:
        """Return d."""
        return self.root.shape[1]

    def __rmatmul__(self, left: Tensor) -> Tensor:
        """Return ``left`` H (K, d)."""
        return torch.mm(left @ self.root.T, self.root)

    def __mul__(self, factor: float) -> LowRank:
        """Return ``factor`` H."""
        return LowRank(self.root * factor**0.5)

    def diagonal(self) -> Tensor:
        """Return diag(H) (d,)."""
        return self.root.square().sum(dim=0)


class LowRankInverse:
    """ρ (D + RᵀR)⁻¹ = ρ D⁻¹ − ρ D⁻¹Rᵀ (I + R D⁻¹Rᵀ)⁻¹ R D⁻¹ (Woodbury's identity), to multiply by from the left.

    Args:
        root: R (r, d).
        diagonal: D (d,), positive.
        rho: ρ.
    """

    def __init__(self, root: Tensor, diagonal: Tensor, rho: float = 1.0) -> None:
        precise, own = _precise(root), _precise(diagonal)
        lower = torch.linalg.cholesky(_identity_and(precise / own, precise))
        half = torch.linalg.solve_triangular(lower, precise / own, upper=False)
        # In the higher precision: it may be the small difference of large terms.
        self._diagonal: Tensor = (rho * (1 / own - half.square().sum(dim=0))).to(root.dtype)
        self._scale = (rho / own).to(root.dtype)
        self._half = (rho**0.5 * half).to(root.dtype)

    def __rmatmul__(self, left: Tensor) -> Tensor:
        """Return ``left`` ρ (D + RᵀR)⁻¹ (K, d)."""
        return torch.addmm(left * self._scale, left @ self._half.T, self._half, alpha=-1)

    def diagonal(self) -> Tensor:
        """Return its diagonal (d,)."""
        return self._diagonal


class LowRankUpper:
    """V (d, d), upper triangular, D + RᵀR = V Vᵀ, kept as R, G (r, d) and its diagonal: above that V_ij = R_iᵀ G_j.

    With S = I + Σ R_j R_jᵀ / D_j over the columns behind a block b, what they leave of the block is
    D_b + R_bᵀ S⁻¹ R_b = V_bb V_bbᵀ, and G_b = S⁻¹ R_b V_bb⁻ᵀ, whatever the blocks are.

    Args:
        root: R (r, d).
        diagonal: D (d,), positive.
    """

    def __init__(self, root: Tensor, diagonal: Tensor) -> None:
        self.inverse = LowRankInverse(root, diagonal)
        self._root, self._right, self._diagonal = root, torch.empty_like(root), torch.empty_like(diagonal)
        behind = _identity_and(_precise(root[:, :0]), _precise(root[:, :0]))
        for columns in reversed(spans(root.shape[1], max(_BLOCK, len(root) // 4))):
            own, added = _precise(root[:, columns]), _precise(diagonal[columns])
            lower = torch.linalg.cholesky(behind)
            half = torch.linalg.solve_triangular(lower, own, upper=False)
            # A block reversed in order has the usual lower factor.
            corner = torch.linalg.cholesky((half.T @ half + added.diag()).flip(0, 1)).flip(0, 1)
            full = torch.linalg.solve_triangular(lower.T, half, upper=True)
            self._right[:, columns] = torch.linalg.solve_triangular(corner.T, full, upper=False, left=False)
            self._diagonal[columns] = corner.diagonal()
            behind += own / added @ own.T

    def corner(self, columns: slice) -> Tensor:
        """Return V_bb (B, B) of a block of columns."""
        above = (self._root[:, columns].T @ self._right[:, columns]).triu(1)
        return above + self._diagonal[columns].diag()

    def pulls(self, changes: Tensor) -> Callable[[slice], Tensor]:
        """Return what gives V_abᵀ Δ_a (B, K) for one block b after the other, a being all columns before it.

        Args:
            changes: Δ (d, K), which is filled in block by block meanwhile.
        """
        total = changes.new_zeros(len(self._root), changes.shape[1])
        done = 0

        def pull(columns: slice) -> Tensor:
            nonlocal done
            total.addmm_(self._root[:, done : columns.start], changes[done : columns.start])
            done = columns.start
            return torch.mm(self._right[:, columns].T, total)

        return pull


Gram = Union[Tensor, LowRank]
"""H (d, d), whole or by its root."""

Upper = Union[Tensor, LowRankUpper]
"""V (d, d), upper triangular, whole or by its factors."""


def width(gram: Gram) -> int:
    """Return how many columns a whole H has that costs as much to multiply by."""
    return 2 * len(gram.root) if isinstance(gram, LowRank) else len(gram)


def _precise(x: Tensor) -> Tensor:
    return x if x.device.type == "mps" else x.double()


def _identity_and(left: Tensor, right: Tensor) -> Tensor:
    """Return I + L Rᵀ (r, r)."""
    return torch.addmm(torch.eye(len(left), dtype=left.dtype, device=left.device), left, right.T)
