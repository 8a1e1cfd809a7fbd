"""Sparsity against error: the order in which layers are left dense, and how many of them meet a target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

from sparsegpt_core.errors import InputError
from sparsegpt_core.pruning.results import LayerResult

__all__ = ["Tradeoff", "fewest"]


@dataclass(frozen=True)
class Tradeoff:
    """Sparsity against error with the k most sensitive layers left dense, for every k.

    Example:
        >>> from sparsegpt_core.pruning import LayerResult
        >>> layers = [
        ...     LayerResult("a", "Linear", (4, 8), "pruned", None, 0.5, sensitivity=0.1),
        ...     LayerResult("b", "Linear", (4, 8), "pruned", None, 0.5, sensitivity=0.3),
        ... ]
        >>> tradeoff = Tradeoff.of(layers)
        >>> tradeoff.names, tradeoff.sparsity, tradeoff.for_sparsity(0.25)
        (('b', 'a'), (0.5, 0.25, 0.0), 1)
    """

    names: tuple[str, ...]
    """The pruned layers, the most sensitive first."""
    sparsity: tuple[float, ...]
    """Item k: fraction of zeros in all convolution and linear weights, with the first k layers left dense."""
    error: tuple[float, ...]
    """Item k: sum of the other layers' sensitivities, which predicts the network's loss."""

    @classmethod
    def of(cls, layers: Sequence[LayerResult]) -> Tradeoff:
        """Rank the pruned layers by sensitivity per zero."""
        pruned = {layer.name: layer for layer in layers if layer.status == "pruned" and layer.sensitivity is not None}
        zeros = {name: layer.sparsity * prod(layer.shape) for name, layer in pruned.items()}
        costs = {name: layer.sensitivity or 0.0 for name, layer in pruned.items()}
        names = sorted(pruned, key=lambda name: costs[name] / max(1.0, zeros[name]), reverse=True)
        weights = sum(prod(layer.shape) for layer in layers) or 1
        kept = [sum(zeros[name] for name in names[k:]) / weights for k in range(len(names) + 1)]
        return cls(tuple(names), tuple(kept), tuple(sum(costs[name] for name in names[k:]) for k in range(len(kept))))

    def for_sparsity(self, min_sparsity: float) -> int:
        """Return how many layers can be left dense at a sparsity of at least ``min_sparsity``.

        Raises:
            InputError: The sparsity with all layers pruned is lower.
        """
        if self.sparsity[0] < min_sparsity:
            raise InputError(
                f"a sparsity of {min_sparsity:.1%} cannot be reached: "
                f"with all layers pruned it is {self.sparsity[0]:.1%}",
                "Lower `sparsity_budget`, or `include` more layers.",
            )
        return max(k for k, sparsity in enumerate(self.sparsity) if sparsity >= min_sparsity)


def fewest(maximum: int, meets: Callable[[int], bool]) -> int:
    """Return the smallest k from 1 to ``maximum`` that meets a target, by bisection.

    Args:
        maximum: A k that meets the target. It is not tried.
        meets: Whether k meets the target. If k does, all larger ones do.

    Example:
        >>> fewest(100, lambda k: k >= 7)
        7
    """
    low, high = 1, maximum
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if meets(middle) else (middle + 1, high)
    return low
