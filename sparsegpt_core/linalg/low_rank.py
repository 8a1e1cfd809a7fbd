"""H of far fewer positions than columns, stored as its root R (r, d). Factoring it costs r² d in place of d³."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sparsegpt_core.execution import World, each, spans, sum_precision
from sparsegpt_core.linalg.hessian import Hessian, Inverse, Upper

__all__ = ["LowRankHessian", "LowRankInverse", "LowRankUpper"]

_MIN_BLOCK_COLUMNS = 256  # factorised at a time; a quarter of the rank where that is more


class LowRankHessian(Hessian):
    """H = RᵀR, stored as R.

    Args:
        root: R (r, d).

    Example:
        >>> import torch
        >>> root = torch.tensor([[1.0, 2.0, 3.0]])
        >>> (torch.eye(3) @ LowRankHessian(root)).tolist()
        [[1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [3.0, 6.0, 9.0]]
    """

    def __init__(self, root: Tensor) -> None:
        self.root = root

    @property
    def columns(self) -> int:
        """The number of columns d."""
        return self.root.shape[1]

    @property
    def equivalent_columns(self) -> int:
        """2 r: a product with Rᵀ (d, r) and one with R (r, d)."""
        return 2 * len(self.root)

    def __rmatmul__(self, left: Tensor) -> Tensor:
        """Return ``left`` H (K, d)."""
        return torch.mm(left @ self.root.T, self.root)  # (K, d) @ (d, r) @ (r, d) -> (K, d)

    def diagonal(self) -> Tensor:
        """Return diag(H) (d,)."""
        return self.root.square().sum(dim=0)

    def to_dense(self) -> Tensor:
        """Return RᵀR (d, d)."""
        return self.root.T @ self.root

    def scaled(self, factor: float) -> LowRankHessian:
        """Return ``factor`` · H."""
        return LowRankHessian(self.root * factor**0.5)

    def normalised(self, scale: Tensor) -> LowRankHessian:
        """Return S⁻¹ H S⁻¹ for the diagonal S (d,)."""
        return LowRankHessian(self.root / scale)

    def merged(self, other: LowRankHessian, share: float, apart: Tensor | None) -> LowRankHessian:
        """Return the H of two sets of inputs together, as :meth:`Hessian.merged` defines it."""
        between = [] if apart is None else [(share * (1 - share)) ** 0.5 * apart[None]]
        return LowRankHessian(torch.cat([(1 - share) ** 0.5 * self.root, share**0.5 * other.root, *between]))

    def resolvent(self, shift: Tensor, rho: float) -> LowRankInverse:
        """Return ρ (H + diag(shift) + ρ I)⁻¹ (d, d), to multiply by from the left."""
        return LowRankInverse(self.root, shift + rho, rho)

    def _upper(self, shift: Tensor, world: World) -> LowRankUpper | None:
        if not bool(shift.all()):
            return None
        return each(lambda added: LowRankUpper(self.root, added), [shift], self.root.device)[0]


class LowRankInverse(Inverse):
    """ρ (D + RᵀR)⁻¹. ``weight @ inverse`` multiplies from the left.

    By Woodbury's identity it is ρ D⁻¹ − ρ D⁻¹Rᵀ (I + R D⁻¹Rᵀ)⁻¹ R D⁻¹.

    Args:
        root: R (r, d).
        diagonal: D (d,), positive.
        rho: ρ.
    """

    def __init__(self, root: Tensor, diagonal: Tensor, rho: float = 1.0) -> None:
        precise, own = _precise(root), _precise(diagonal)
        lower = torch.linalg.cholesky(_identity_and(precise / own, precise))  # of I + R D⁻¹Rᵀ (r, r)
        half = torch.linalg.solve_triangular(lower, precise / own, upper=False)  # (r, r)⁻¹ @ (r, d) -> (r, d)
        # In the higher precision: it may be the small difference of large terms.
        self._diagonal: Tensor = (rho * (1 / own - half.square().sum(dim=0))).to(root.dtype)
        self._scale = (rho / own).to(root.dtype)
        self._half = (rho**0.5 * half).to(root.dtype)

    def __rmatmul__(self, left: Tensor) -> Tensor:
        """Return ``left`` ρ (D + RᵀR)⁻¹ (K, d)."""
        # (K, d) − (K, d) @ (d, r) @ (r, d)
        return torch.addmm(left * self._scale, left @ self._half.T, self._half, alpha=-1)

    def diagonal(self) -> Tensor:
        """Return its diagonal (d,)."""
        return self._diagonal


class LowRankUpper(Upper):
    """V (d, d), upper triangular, D + RᵀR = V Vᵀ, stored as R, G (r, d) and its diagonal.

    Above the diagonal V_ij = R_iᵀ G_j.
    Let S = I + Σ R_j R_jᵀ / D_j over the columns j after a block b. Then those columns leave
    D_b + R_bᵀ S⁻¹ R_b = V_bb V_bbᵀ of the block, and G_b = S⁻¹ R_b V_bb⁻ᵀ, for blocks of any size.

    Args:
        root: R (r, d).
        diagonal: D (d,), positive.
    """

    def __init__(self, root: Tensor, diagonal: Tensor) -> None:
        self._inverse = LowRankInverse(root, diagonal)
        self._root, self._right, self._diagonal = root, torch.empty_like(root), torch.empty_like(diagonal)
        after = _identity_and(_precise(root[:, :0]), _precise(root[:, :0]))  # S (r, r)
        for columns in reversed(spans(root.shape[1], max(_MIN_BLOCK_COLUMNS, len(root) // 4))):
            own, added = _precise(root[:, columns]), _precise(diagonal[columns])  # R_b (r, B), D_b (B,)
            lower = torch.linalg.cholesky(after)
            half = torch.linalg.solve_triangular(lower, own, upper=False)  # (r, r)⁻¹ @ (r, B) -> (r, B)
            # V_bb (B, B): a block with its order reversed has the usual lower factor.
            corner = torch.linalg.cholesky((half.T @ half + added.diag()).flip(0, 1)).flip(0, 1)
            full = torch.linalg.solve_triangular(lower.T, half, upper=True)  # S⁻¹ R_b (r, B)
            self._right[:, columns] = torch.linalg.solve_triangular(corner.T, full, upper=False, left=False)
            self._diagonal[columns] = corner.diagonal()
            after += own / added @ own.T  # (r, B) @ (B, r) -> (r, r)

    def corner(self, columns: slice) -> Tensor:
        """Return V_bb (B, B) of a block of columns."""
        above = (self._root[:, columns].T @ self._right[:, columns]).triu(1)
        return above + self._diagonal[columns].diag()

    def pulls(self, changes: Tensor) -> Callable[[slice], Tensor]:
        """Return a function that gives V_abᵀ Δ_a (B, K) of a block b, as :meth:`Upper.pulls` defines it."""
        total = changes.new_zeros(len(self._root), changes.shape[1])  # R_a Δ_a (r, K), of the columns so far
        done = 0

        def pull(columns: slice) -> Tensor:
            nonlocal done
            total.addmm_(self._root[:, done : columns.start], changes[done : columns.start])
            done = columns.start
            return torch.mm(self._right[:, columns].T, total)  # (B, r) @ (r, K) -> (B, K)

        return pull

    def solve(self, left: Tensor) -> Tensor:
        """Return X H_λ⁻¹ (K, d) for ``left``, X (K, d)."""
        return left @ self._inverse

    def inverse_diagonal(self) -> Tensor:
        """Return diag(H_λ⁻¹) (d,), with the same bits for any number of threads."""
        return self._inverse.diagonal()


def _precise(x: Tensor) -> Tensor:
    return x.to(sum_precision(x.device))


def _identity_and(left: Tensor, right: Tensor) -> Tensor:
    """Return I + L Rᵀ (r, r)."""
    return torch.addmm(torch.eye(len(left), dtype=left.dtype, device=left.device), left, right.T)
