"""Sparsity against error: which layers to leave dense first, and how many for a target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

from sparsegpt_core.errors import InputError
from sparsegpt_core.pruning.results import LayerResult

__all__ = ["Tradeoff", "fewest"]


@dataclass(frozen=True)
class Tradeoff:
    """What a pruned network's layers cost and gain, the most sensitive first.

    ``names`` are the pruned layers; with the first k of them left dense, ``sparsity[k]`` is the share of zeros in
    the weights of all convolution and linear layers, and ``error[k]`` the sum of the others' sensitivities, which
    foretells what the network loses.
    """

    names: tuple[str, ...]
    sparsity: tuple[float, ...]
    error: tuple[float, ...]

    @classmethod
    def of(cls, layers: Sequence[LayerResult]) -> Tradeoff:
        """Rank the pruned layers by sensitivity per weight that is saved."""
        pruned = {layer.name: layer for layer in layers if layer.status == "pruned" and layer.sensitivity is not None}
        zeros = {name: layer.sparsity * prod(layer.shape) for name, layer in pruned.items()}
        costs = {name: layer.sensitivity or 0.0 for name, layer in pruned.items()}
        names = sorted(pruned, key=lambda name: costs[name] / max(1.0, zeros[name]), reverse=True)
        weights = sum(prod(layer.shape) for layer in layers) or 1
        kept = [sum(zeros[name] for name in names[k:]) / weights for k in range(len(names) + 1)]
        return cls(tuple(names), tuple(kept), tuple(sum(costs[name] for name in names[k:]) for k in range(len(kept))))

    def for_sparsity(self, least: float) -> int:
        """How many layers can be left dense at a sparsity of at least ``least``.

        Raises:
            InputError: Even with all layers pruned it is lower.
        """
        if self.sparsity[0] < least:
            raise InputError(
                f"a sparsity of {least:.1%} cannot be reached: with all layers pruned it is {self.sparsity[0]:.1%}",
                "Lower --sparsity-budget, or --include more layers.",
            )
        return max(k for k, sparsity in enumerate(self.sparsity) if sparsity >= least)


def fewest(most: int, meets: Callable[[int], bool]) -> int:
    """Return the least k from 1 to ``most`` that meets a target, which all larger ones do as well; by bisection.

    ``most`` itself is taken to meet it and never tried.
    """
    low, high = 1, most
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if meets(middle) else (middle + 1, high)
    return low
