"""The layer Hessian H = (1/n) Σ x xᵀ and the triangular factor of its damped inverse."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsegpt_core.errors import InputError, NumericsError

__all__ = ["Factor", "HessianAccumulator", "inverse_factor", "quadratic_error"]

_log = logging.getLogger(__name__)
_RETRIES = 3


class HessianAccumulator:
    """Sum x xᵀ over batches: float32 products, float64 across batches.

    Args:
        columns: d, the length of one x.
        device: Where the sums live; that of the inputs.
    """

    def __init__(self, columns: int, device: torch.device) -> None:
        # MPS has no float64; there the sums stay in float32.
        precision = torch.float32 if device.type == "mps" else torch.float64
        self._sum = torch.zeros(columns, columns, dtype=precision, device=device)
        self.positions = 0

    def add(self, x: Tensor) -> None:
        """Add the outer products of the rows of ``x`` (positions, d)."""
        x = x.float()
        self._sum += x.T @ x
        self.positions += x.shape[0]

    def mean(self, name: str = "layer") -> Tensor:
        """Return H (d, d) in float32 and give up the sums; ``name`` is the layer's, for messages.

        Raises:
            InputError: Nothing was added.
            NumericsError: H holds NaN or infinity, so some input did.
        """
        if not self.positions:
            raise InputError(f"{name}: the Hessian needs at least one input")
        hessian = self._sum.div_(self.positions).float()
        self._sum = self._sum.new_empty(0)
        if not bool(torch.isfinite(hessian).all()):
            raise NumericsError(
                f"{name}: its inputs hold NaN or infinity", "Check the calibration images and the weights."
            )
        return hessian


@dataclass(frozen=True)
class Factor:
    """The factor of a damped inverse.

    ``upper`` is U (d, d), upper triangular, with (H + λI)⁻¹ = UᵀU; ``damping`` is λ relative to
    mean(diag H), as it was finally used; ``dead`` (d,) marks columns that are never active.
    """

    upper: Tensor
    damping: float
    dead: Tensor


def inverse_factor(hessian: Tensor, damping: float = 0.01, name: str = "layer") -> Factor:
    """Factor (H + λI)⁻¹ = UᵀU with U upper triangular, λ = damping · mean(diag H).

    One Cholesky factorisation instead of the usual Cholesky, inverse, Cholesky: with J the matrix that
    reverses order, J H J = L Lᵀ gives H = V Vᵀ with V = J L J upper triangular, hence U = V⁻¹.
    Where H is not positive definite the damping is raised tenfold, three times at most.

    Args:
        hessian: H (d, d), symmetric, positive semi-definite.
        damping: λ relative to the mean of the diagonal.
        name: The layer, for messages.

    Raises:
        NumericsError: H is not positive definite even with 1000 times the damping.
    """
    diagonal = hessian.diagonal()
    dead = diagonal == 0
    scale = float(diagonal.mean()) or 1.0
    used = damping
    for _ in range(_RETRIES + 1):
        reversed_ = hessian.flip(0, 1)
        reversed_.diagonal().add_(dead.flip(0).to(hessian.dtype)).add_(used * scale)
        lower, info = torch.linalg.cholesky_ex(reversed_)
        if int(info) == 0:
            del reversed_  # of a wide layer each of these takes gigabytes
            if used > damping:
                _log.warning("%s: the Hessian needed a damping of %g instead of %g", name, used, damping)
            return Factor(_upper_inverse(lower.flip(0, 1)), used, dead)
        used = 10 * used if used else 1e-6
    raise NumericsError(
        f"{name}: the Hessian is not positive definite, even damped with {used / 10:g} of its mean diagonal",
        "Use more calibration samples, or a larger --damping.",
    )


def _upper_inverse(upper: Tensor) -> Tensor:
    identity = torch.eye(upper.shape[0], dtype=upper.dtype, device=upper.device)
    inverse: Tensor = torch.linalg.solve_triangular(upper, identity, upper=True)
    return inverse


def quadratic_error(difference: Tensor, hessian: Tensor) -> float:
    """Return tr(Δ H Δᵀ) = (1/n) Σ ‖Δ x‖² for Δ (K, d): the output error that a change of weights makes."""
    return float(((difference @ hessian) * difference).sum(dtype=torch.float32))
