"""The moments of a layer's inputs, as means over positions."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sparsegpt_core.errors import InputError, NumericsError
from sparsegpt_core.linalg import Hessian

__all__ = ["Moments", "nearly_constant", "no_inputs", "not_finite", "pooled"]

_MAX_CONSTANT_VARIANCE = 1e-6  # rounding in sums of float32 pieces, relative to the square of the mean


@dataclass(frozen=True)
class Moments:
    """Means over the positions of a layer's inputs x̃ in the pruned network, float32.

    W x is the layer's output in the dense network, without its bias. With ``mean``, the moments are central: a shift
    of the outputs can take up the means, so ``hessian``, ``cross`` and ``energy`` are those of the deviations.
    """

    hessian: Hessian
    """H (d, d) = (1/n) Σ x̃ x̃ᵀ."""
    cross: Tensor | None
    """C (K, d) = (1/n) Σ (W x) x̃ᵀ; None where the dense outputs are unknown."""
    energy: float | None
    """(1/n) Σ ‖W x‖²; None without ``cross``."""
    positions: int
    """The number of output positions, on all devices."""
    used: int
    """n, the number of them that were summed."""
    mean: Tensor | None = None
    """(d,) = (1/n) Σ x̃; None where the moments are not central."""
    output_mean: Tensor | None = None
    """(K,) = (1/n) Σ W x; None without ``mean`` or ``cross``."""
    samples: int = 0
    """m, the samples that the positions are from; 0: each position is a sample of its own."""

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


def nearly_constant(variance: Tensor, mean: Tensor) -> Tensor:
    """Return which inputs (d,) are constant up to rounding: a bias can absorb them, so their weights can be zero."""
    return variance <= _MAX_CONSTANT_VARIANCE * mean.square()


def no_inputs(name: str) -> InputError:
    """Return the error for a layer without inputs."""
    return InputError(f"{name}: the Hessian needs at least one input")


def not_finite(name: str) -> NumericsError:
    """Return the error for a layer with an input or dense output that is not finite."""
    return NumericsError(f"{name}: its inputs contain NaN or infinity", "Check the calibration images and the weights.")


def pooled(first: Moments, second: Moments) -> Moments:
    """Return the moments over the positions of both, from moments that are stored in the same way.

    Example:
        >>> import torch
        >>> from sparsegpt_core.linalg import DenseHessian
        >>> first = Moments(DenseHessian(torch.eye(2)), cross=None, energy=None, positions=1, used=1)
        >>> second = Moments(DenseHessian(5 * torch.eye(2)), cross=None, energy=None, positions=3, used=3)
        >>> pooled(first, second).hessian.diagonal().tolist()
        [4.0, 4.0]
    """
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
        samples=first.samples + second.samples,
    )
    if apart is None or first.output_mean is None or second.output_mean is None or result.cross is None:
        return result
    outputs_apart, spread = second.output_mean - first.output_mean, share * (1 - share)
    # What the two parts' means add: s (1 − s) times the products of their differences.
    result.cross.addr_(outputs_apart, apart, alpha=spread)  # (K, d) + (K,) ⊗ (d,)
    return replace(result, energy=(result.energy or 0.0) + spread * float(outputs_apart.square().sum()))
