"""What a solver needs to know of a layer's inputs, summed up over positions."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sparsegpt_core.errors import InputError, NumericsError
from sparsegpt_core.linalg import Hessian

__all__ = ["Moments", "hardly_vary", "no_inputs", "not_finite", "pooled"]

_ROUNDING = 1e-6  # of a square, in sums of float32 pieces


@dataclass(frozen=True)
class Moments:
    """What a solver needs to know of a layer's inputs x̃; all are means over positions, float32.

    With ``mean`` the outputs may be shifted as a whole, so x̃ and W x stand for their deviations from their
    means in the first three.

    Attributes:
        hessian: H (d, d) = (1/n) Σ x̃ x̃ᵀ, whole or by its root.
        cross: (K, d) = (1/n) Σ (W x) x̃ᵀ, W x the dense layer's output without its bias; or None.
        energy: (1/n) Σ ‖W x‖²; present beside ``cross``.
        positions: How many output positions there were, on all devices.
        used: How many of them were summed: n.
        mean: (d,) = (1/n) Σ x̃, or None.
        output_mean: (K,) = (1/n) Σ W x; present beside ``mean`` and ``cross``.
    """

    hessian: Hessian
    cross: Tensor | None
    energy: float | None
    positions: int
    used: int
    mean: Tensor | None = None
    output_mean: Tensor | None = None

    def scaled(self, factor: float) -> Moments:
        """Return the moments of inputs ``factor`` times as large."""
        square = factor**2
        return replace(
            self,
            hessian=self.hessian.scaled(square),
            cross=None if self.cross is None else self.cross * square,
            energy=None if self.energy is None else self.energy * square,
            mean=None if self.mean is None else self.mean * factor,
            output_mean=None if self.output_mean is None else self.output_mean * factor,
        )


def hardly_vary(variance: Tensor, mean: Tensor) -> Tensor:
    """Tell which inputs (d,) have a variance that is but rounding: a bias takes them up, and their weights can go."""
    return variance <= _ROUNDING * mean.square()


def no_inputs(name: str) -> InputError:
    """Return the error of a layer that nothing was added for."""
    return InputError(f"{name}: the Hessian needs at least one input")


def not_finite(name: str) -> NumericsError:
    """Return the error of a layer whose inputs, or dense outputs, are not all finite."""
    return NumericsError(f"{name}: its inputs hold NaN or infinity", "Check the calibration images and the weights.")


def pooled(first: Moments, second: Moments) -> Moments:
    """Return the moments over the positions of both."""
    share = second.used / (first.used + second.used)
    apart = None if first.mean is None or second.mean is None else second.mean - first.mean

    def blend(one: Tensor | None, other: Tensor | None) -> Tensor | None:
        return None if one is None or other is None else torch.lerp(one, other, share)

    result = Moments(
        hessian=first.hessian.merged(second.hessian, share, apart),
        cross=blend(first.cross, second.cross),
        energy=None if first.energy is None else (1 - share) * first.energy + share * (second.energy or 0.0),
        positions=first.positions + second.positions,
        used=first.used + second.used,
        mean=blend(first.mean, second.mean),
        output_mean=blend(first.output_mean, second.output_mean),
    )
    if apart is None or first.output_mean is None or second.output_mean is None or result.cross is None:
        return result
    outputs_apart, spread = second.output_mean - first.output_mean, share * (1 - share)
    result.cross.addr_(outputs_apart, apart, alpha=spread)
    return replace(result, energy=(result.energy or 0.0) + spread * float(outputs_apart.square().sum()))
