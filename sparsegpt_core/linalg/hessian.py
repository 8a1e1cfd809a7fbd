"""The Hessian H of a layer's inputs and its triangular factor, however H is stored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from sparsegpt_core.errors import NumericsError
from sparsegpt_core.execution import ALONE, World, sum_precision

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Factor", "Hessian", "Inverse", "Upper"]

_MAX_DAMPING_RAISES = 3


class Upper(ABC):
    """V (d, d), upper triangular: H_λ = V Vᵀ, and (H_λ)⁻¹ = UᵀU with U = V⁻¹."""

    @abstractmethod
    def corner(self, columns: slice) -> Tensor:
        """Return V_bb (B, B) of a block of columns."""

    @abstractmethod
    def pulls(self, changes: Tensor) -> Callable[[slice], Tensor]:
        """Return a function that gives V_abᵀ Δ_a (B, K) of a block b, where a is all columns before b.

        It must be called for one block after the other, from the first column to the last.

        Args:
            changes: Δ (d, K). The caller fills it block by block between the calls.
        """

    @abstractmethod
    def solve(self, left: Tensor) -> Tensor:
        """Return X H_λ⁻¹ (K, d) for ``left``, X (K, d)."""

    @abstractmethod
    def inverse_diagonal(self) -> Tensor:
        """Return diag(H_λ⁻¹) (d,), with the same bits for any number of threads."""


class Inverse(ABC):
    """A symmetric inverse (d, d). ``weight @ inverse`` multiplies from the left."""

    @abstractmethod
    def __rmatmul__(self, left: Tensor) -> Tensor:
        """Return ``left`` times the inverse (K, d)."""


@dataclass(frozen=True)
class Factor:
    """The factor of a damped Hessian H_λ (d, d)."""

    upper: Upper
    """V (d, d), upper triangular: H_λ = V Vᵀ."""
    shift: Tensor
    """(d,), the diagonal of H_λ − H: λ, and 1 more in dead columns."""
    damping: float
    """λ relative to mean(diag H). It is larger than requested where the requested damping did not suffice."""
    dead: Tensor
    """(d,), boolean: the columns that are never active."""


class Hessian(ABC):
    """H (d, d), symmetric and positive semi-definite. ``weight @ hessian`` multiplies from the left."""

    @property
    @abstractmethod
    def columns(self) -> int:
        """The number of columns d."""

    @property
    @abstractmethod
    def equivalent_columns(self) -> int:
        """The number of columns of a dense H that costs as much to multiply by."""

    @abstractmethod
    def __rmatmul__(self, left: Tensor) -> Tensor:
        """Return ``left`` H (K, d)."""

    @abstractmethod
    def diagonal(self) -> Tensor:
        """Return diag(H) (d,)."""

    @abstractmethod
    def to_dense(self) -> Tensor:
        """Return H as one matrix (d, d)."""

    @abstractmethod
    def scaled(self, factor: float) -> Self:
        """Return ``factor`` · H."""

    @abstractmethod
    def normalised(self, scale: Tensor) -> Self:
        """Return S⁻¹ H S⁻¹ for the diagonal S (d,)."""

    @abstractmethod
    def merged(self, other: Self, share: float, apart: Tensor | None) -> Self:
        """Return the H of two sets of inputs together.

        It is (1 − s) H + s H' + s (1 − s) δ δᵀ, where the last term is the spread between the two means.

        Args:
            other: H' of the second set, stored as this one is.
            share: s, the fraction of the inputs in the second set.
            apart: δ (d,), the difference of the two means; None where H is not centred.
        """

    @abstractmethod
    def resolvent(self, shift: Tensor, rho: float) -> Tensor | Inverse:
        """Return ρ (H + diag(shift) + ρ I)⁻¹ (d, d), which multiplies from the left."""

    def factor(self, damping: float = 0.01, name: str = "layer", world: World = ALONE) -> Factor:
        """Factor H_λ = H + λI = V Vᵀ with V upper triangular, λ = damping · mean(diag H).

        The U of SparseGPT, (H_λ)⁻¹ = UᵀU, is V⁻¹. Every use of U can use V instead, so one Cholesky factorisation
        from the last column to the first replaces the usual Cholesky, inverse, Cholesky. Where H_λ is not positive
        definite, λ is raised tenfold, three times at most.

        Args:
            damping: λ relative to the mean of the diagonal.
            name: The layer, for messages.
            world: The processes that have this H and need its factor.

        Raises:
            NumericsError: H is not positive definite even with 1000 times the damping.
        """
        diagonal = self.diagonal()
        dead = diagonal == 0
        # A float64 mean has the same bits for any number of threads.
        scale = float(diagonal.to(sum_precision(diagonal.device)).mean()) or 1.0
        used = damping
        for _ in range(_MAX_DAMPING_RAISES + 1):
            shift = dead.to(diagonal.dtype) + used * scale
            upper = self._upper(shift, world)
            if upper is not None:
                return Factor(upper, shift, used, dead)
            used = 10 * used if used else 1e-6
        raise NumericsError(
            f"{name}: the Hessian is not positive definite, even with a damping of {used / 10:g}",
            "Use more calibration samples, or a larger `damping`.",
        )

    @abstractmethod
    def _upper(self, shift: Tensor, world: World) -> Upper | None:
        """Factor H + diag(shift); None where it is not positive definite."""
