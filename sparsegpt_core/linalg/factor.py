"""The triangular factor by which a layer's damped Hessian is inverted."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsegpt_core.errors import NumericsError
from sparsegpt_core.execution import each, spans
from sparsegpt_core.linalg.low_rank import Gram, LowRank, LowRankUpper, Upper

__all__ = ["Factor", "inverse_factor"]

_log = logging.getLogger(__name__)
_RETRIES = 3
_BLOCK = 256  # columns factorised at a time
_ROWS = 512  # of them updated at a time
_COLUMNS = 256  # of the triangular inverse at a time


@dataclass(frozen=True)
class Factor:
    """The factor by which a damped Hessian is inverted.

    ``upper`` is V (d, d), upper triangular, with H_λ = V Vᵀ, so (H_λ)⁻¹ = UᵀU with U = V⁻¹; ``shift`` (d,) is
    what H_λ has more than H on its diagonal: λ, and 1 in dead columns; ``damping`` is λ relative to
    mean(diag H), as it was finally used; ``dead`` (d,) marks columns that are never active.
    """

    upper: Upper
    shift: Tensor
    damping: float
    dead: Tensor

    def solve(self, right: Tensor) -> Tensor:
        """Return X H_λ⁻¹ (K, d)."""
        if isinstance(self.upper, LowRankUpper):
            return right @ self.upper.inverse
        half = torch.linalg.solve_triangular(self.upper.T, right, upper=False, left=False)
        whole: Tensor = torch.linalg.solve_triangular(self.upper, half, upper=True, left=False)
        return whole

    def inverse_diagonal(self) -> Tensor:
        """Return diag(H_λ⁻¹) (d,), the same however many threads there are."""
        upper = self.upper
        if isinstance(upper, LowRankUpper):
            return upper.inverse.diagonal()

        def squares(columns: slice) -> Tensor:
            # H_λ⁻¹ = UᵀU, U = V⁻¹; its columns end at the diagonal.
            corner = upper[: columns.stop, : columns.stop]
            right = torch.eye(columns.stop, dtype=upper.dtype, device=upper.device)[:, columns]
            inverse: Tensor = torch.linalg.solve_triangular(corner, right, upper=True)
            return inverse.square_().sum(dim=0)

        return torch.cat(each(squares, spans(len(upper), _COLUMNS), upper.device))


def inverse_factor(hessian: Gram, damping: float = 0.01, name: str = "layer") -> Factor:
    """Factor H_λ = H + λI = V Vᵀ with V upper triangular, λ = damping · mean(diag H).

    One Cholesky factorisation, from the last column to the first, instead of the usual Cholesky, inverse,
    Cholesky: the U of SparseGPT, (H_λ)⁻¹ = UᵀU, is V⁻¹, and whatever needs U can use V. Where H is not
    positive definite the damping is raised tenfold, three times at most.

    Args:
        hessian: H (d, d), symmetric, positive semi-definite; whole or by its root.
        damping: λ relative to the mean of the diagonal.
        name: The layer, for messages.

    Raises:
        NumericsError: H is not positive definite even with 1000 times the damping.
    """
    diagonal = hessian.diagonal()
    dead = diagonal == 0
    precision = torch.float32 if hessian.device.type == "mps" else torch.float64
    scale = float(diagonal.to(precision).mean()) or 1.0  # the same to the last bit, however many threads add
    used = damping
    for _ in range(_RETRIES + 1):
        shift = dead.to(hessian.dtype) + used * scale
        upper = _upper(hessian, shift)
        if upper is not None:
            if used > damping:
                _log.warning("%s: the Hessian needed a damping of %g instead of %g", name, used, damping)
            return Factor(upper, shift, used, dead)
        used = 10 * used if used else 1e-6
    raise NumericsError(
        f"{name}: the Hessian is not positive definite, even damped with {used / 10:g} of its mean diagonal",
        "Use more calibration samples, or a larger --damping.",
    )


def _upper(hessian: Gram, shift: Tensor) -> Upper | None:
    """Factor H + diag(shift); None where it is not positive definite."""
    if isinstance(hessian, LowRank):
        root = hessian.root
        return each(lambda added: LowRankUpper(root, added), [shift], root.device)[0] if bool(shift.all()) else None
    upper = hessian.clone()
    upper.diagonal().add_(shift)
    return upper if _factorise(upper) else None


def _factorise(matrix: Tensor) -> bool:
    """Overwrite A (d, d) with V, upper triangular, A = V Vᵀ; False where A is not positive definite.

    By blocks of columns, the last first: matrix products do nearly all the work, and in place.
    """
    for stop in range(len(matrix), 0, -_BLOCK):
        start = max(0, stop - _BLOCK)
        columns, corner = matrix[:stop, start:stop], matrix[start:stop, start:stop]

        def update(rows: slice, columns: Tensor = columns, start: int = start, stop: int = stop) -> None:
            columns[rows].addmm_(matrix[rows, stop:], matrix[start:stop, stop:].T, alpha=-1)

        def solve(rows: slice, columns: Tensor = columns, corner: Tensor = corner) -> None:
            columns[rows] = torch.linalg.solve_triangular(corner.T, columns[rows], upper=False, left=False)

        each(update, spans(stop, _ROWS), matrix.device)
        # A block reversed in order has the usual lower factor.
        lower, info = each(torch.linalg.cholesky_ex, [corner.flip(0, 1)], matrix.device)[0]
        if int(info):
            return False
        corner.copy_(lower.flip(0, 1))
        each(solve, spans(start, _ROWS), matrix.device)
    matrix.triu_()
    return True
