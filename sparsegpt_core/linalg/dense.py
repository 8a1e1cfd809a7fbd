"""H as one matrix, and its factor."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sparsegpt_core.execution import World, each, spans
from sparsegpt_core.linalg.hessian import Hessian, Upper

__all__ = ["DenseHessian", "DenseUpper"]

_BLOCK_COLUMNS = 256  # factorised at a time
_UPDATE_ROWS = 512  # of a block's columns updated by one thread
_INVERSE_COLUMNS = 256  # of the triangular inverse computed by one thread


class DenseHessian(Hessian):
    """H as one matrix.

    Args:
        matrix: H (d, d).

    Example:
        >>> import torch
        >>> x = torch.tensor([[1.0, 2.0], [3.0, -1.0]])
        >>> hessian = DenseHessian(x.T @ x / 2)
        >>> factor = hessian.factor(damping=0.01)
        >>> upper = factor.upper.corner(slice(0, 2))  # all of V
        >>> torch.allclose(upper @ upper.T, hessian.to_dense() + factor.shift.diag())
        True
    """

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix

    @property
    def columns(self) -> int:
        """The number of columns d."""
        return len(self.matrix)

    @property
    def equivalent_columns(self) -> int:
        """The number of columns d."""
        return len(self.matrix)

    def __rmatmul__(self, left: Tensor) -> Tensor:
        """Return ``left`` H (K, d)."""
        return left @ self.matrix

    def diagonal(self) -> Tensor:
        """Return diag(H) (d,), a view."""
        return self.matrix.diagonal()

    def to_dense(self) -> Tensor:
        """Return H (d, d) itself."""
        return self.matrix

    def scaled(self, factor: float) -> DenseHessian:
        """Return ``factor`` · H."""
        return DenseHessian(self.matrix * factor)

    def normalised(self, scale: Tensor) -> DenseHessian:
        """Return S⁻¹ H S⁻¹ for the diagonal S (d,)."""
        return DenseHessian(self.matrix / scale / scale[:, None])

    def merged(self, other: DenseHessian, share: float, apart: Tensor | None) -> DenseHessian:
        """Return the H of two sets of inputs together, as :meth:`Hessian.merged` defines it."""
        both = torch.lerp(self.matrix, other.matrix, share)
        return DenseHessian(both if apart is None else both.addr_(apart, apart, alpha=share * (1 - share)))

    def resolvent(self, shift: Tensor, rho: float) -> Tensor:
        """Return ρ (H + diag(shift) + ρ I)⁻¹ (d, d)."""
        shifted = self.matrix.clone()
        shifted.diagonal().add_(shift).add_(rho)
        return torch.cholesky_inverse(torch.linalg.cholesky(shifted)).mul_(rho)

    def _upper(self, shift: Tensor, world: World) -> DenseUpper | None:
        # Processes on one CPU share its cores: the first one factorises, the others wait for its V.
        # With a GPU for each process, they all factorise.
        shared = world.size > 1 and self.matrix.device.type == "cpu"
        upper, definite = self.matrix.clone(), torch.tensor(True)
        if world.rank == 0 or not shared:
            upper.diagonal().add_(shift)
            definite.fill_(_factorise(upper))
        if shared:
            world.spread([upper, definite])
        return DenseUpper(upper) if definite else None


class DenseUpper(Upper):
    """V as one matrix.

    Args:
        matrix: V (d, d), upper triangular.
    """

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix

    def corner(self, columns: slice) -> Tensor:
        """Return V_bb (B, B) of a block of columns, a view."""
        return self.matrix[columns, columns]

    def pulls(self, changes: Tensor) -> Callable[[slice], Tensor]:
        """Return a function that gives V_abᵀ Δ_a (B, K) of a block b, as :meth:`Upper.pulls` defines it."""
        # (a, B)ᵀ @ (a, K) -> (B, K)
        return lambda columns: self.matrix[: columns.start, columns].T @ changes[: columns.start]

    def solve(self, left: Tensor) -> Tensor:
        """Return X H_λ⁻¹ (K, d) for ``left``, X (K, d)."""
        half = torch.linalg.solve_triangular(self.matrix.T, left, upper=False, left=False)
        whole: Tensor = torch.linalg.solve_triangular(self.matrix, half, upper=True, left=False)
        return whole

    def inverse_diagonal(self) -> Tensor:
        """Return diag(H_λ⁻¹) (d,), with the same bits for any number of threads."""
        upper = self.matrix

        def squares(columns: slice) -> Tensor:
            # H_λ⁻¹ = UᵀU with U = V⁻¹, so its diagonal is the squares of U's columns, which end at the diagonal.
            corner = upper[: columns.stop, : columns.stop]
            right = torch.eye(columns.stop, dtype=upper.dtype, device=upper.device)[:, columns]
            inverse: Tensor = torch.linalg.solve_triangular(corner, right, upper=True)  # U_:b (stop, B)
            return inverse.square_().sum(dim=0)

        return torch.cat(each(squares, spans(len(upper), _INVERSE_COLUMNS), upper.device))


def _factorise(matrix: Tensor) -> bool:
    """Overwrite A (d, d) with V, upper triangular, A = V Vᵀ; False where A is not positive definite.

    Block b of the columns follows from the blocks after it, c: with V_:c known, A_:b − V_:c V_bcᵀ = V_:b V_bbᵀ. The
    blocks run from the last to the first. Matrix products do nearly all of the work, and in place.
    """
    for stop in range(len(matrix), 0, -_BLOCK_COLUMNS):
        start = max(0, stop - _BLOCK_COLUMNS)
        columns, corner = matrix[:stop, start:stop], matrix[start:stop, start:stop]

        def update(rows: slice, columns: Tensor = columns, start: int = start, stop: int = stop) -> None:
            # (rows, B) -= (rows, c) @ (B, c)ᵀ
            columns[rows].addmm_(matrix[rows, stop:], matrix[start:stop, stop:].T, alpha=-1)

        def solve(rows: slice, columns: Tensor = columns, corner: Tensor = corner) -> None:
            # (rows, B) @ (B, B)⁻ᵀ -> (rows, B)
            columns[rows] = torch.linalg.solve_triangular(corner.T, columns[rows], upper=False, left=False)

        each(update, spans(stop, _UPDATE_ROWS), matrix.device)
        # V_bb: a block with its order reversed has the usual lower factor.
        lower, info = each(torch.linalg.cholesky_ex, [corner.flip(0, 1)], matrix.device)[0]
        if int(info):
            return False
        corner.copy_(lower.flip(0, 1))
        each(solve, spans(start, _UPDATE_ROWS), matrix.device)
    matrix.triu_()
    return True
