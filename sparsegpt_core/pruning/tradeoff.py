"""Sparsity or time against error: the order in which layers are left dense, and how many of them meet a target."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from sparsegpt_core.errors import InputError
from sparsegpt_core.pruning.results import LayerResult

__all__ = ["Tradeoff", "fewest"]

_NOTHING = 1e-12  # of the time, or of the zeros: below it a layer is worth nothing


@dataclass(frozen=True)
class Tradeoff:
    """Sparsity and time against error with the k most costly layers left dense, for every k.

    Example:
        >>> from sparsegpt_core.pruning import LayerResult
        >>> layers = [LayerResult(name, "Linear", (4, 8), "pruned", None, 0.5) for name in ("a", "b")]
        >>> tradeoff = Tradeoff.of(layers, {"a": 0.1, "b": 0.3})
        >>> tradeoff.names, tradeoff.sparsity, tradeoff.for_sparsity(0.25)
        (('b', 'a'), (0.5, 0.25, 0.0), 1)
    """

    names: tuple[str, ...]
    """The pruned layers: first the one with the most error for the time that it saves, or for its zeros."""
    sparsity: tuple[float, ...]
    """Item k: fraction of zeros in all convolution and linear weights, with the first k layers left dense."""
    error: tuple[float, ...]
    """Item k: the sum of the other layers' errors, which predicts the network's."""
    speedup: tuple[float, ...] | None = None
    """Item k: the estimated speed-up of the network, if the other layers run on sparse kernels. None: not estimated."""
    expected: tuple[float, ...] | None = None
    """Item k: the percentage of images that is expected to change class. None without classes."""

    @classmethod
    def of(
        cls,
        layers: Sequence[LayerResult],
        errors: Mapping[str, float],
        saved: Mapping[str, float] | None = None,
        expect: Callable[[float], float] | None = None,
    ) -> Tradeoff:
        """Rank the pruned layers by error for time saved, or else for zeros.

        Args:
            layers: All layers of the network.
            errors: The squared error of the network's outputs that each pruned layer alone causes. Errors of several
                layers nearly add up.
            saved: The share of the network's time that each layer's sparse kernels save.
            expect: Returns the expected disagreement, in percent, at an error of the outputs.
        """
        pruned = {layer.name: layer for layer in layers if layer.status == "pruned"}
        zeros = {name: layer.sparsity * prod(layer.shape) for name, layer in pruned.items()}
        worth = {name: saved.get(name, 0.0) for name in pruned} if saved else zeros
        names = sorted(pruned, key=lambda name: errors[name] / max(_NOTHING, worth[name]), reverse=True)
        rests = [names[k:] for k in range(len(names) + 1)]
        weights = sum(prod(layer.shape) for layer in layers) or 1
        error = tuple(sum(errors[name] for name in rest) for rest in rests)
        return cls(
            tuple(names),
            tuple(sum(zeros[name] for name in rest) / weights for rest in rests),
            error,
            tuple(1 / (1 - sum(worth[name] for name in rest)) for rest in rests) if saved else None,
            tuple(map(expect, error)) if expect else None,
        )

    def for_speedup(self, min_speedup: float) -> int:
        """Return how many layers can be left dense at an estimated speed-up of at least ``min_speedup``.

        Raises:
            InputError: The speed-up with all layers pruned is lower, or is not estimated.
        """
        if self.speedup is None:
            raise InputError("a speed-up needs an estimate of the gain of each layer", "Use `layers=pays`.")
        if self.speedup[0] < min_speedup:
            raise InputError(
                f"a speed-up of {min_speedup:g}× cannot be reached: with all layers pruned the estimate is "
                f"{self.speedup[0]:.2f}×",
                "Lower `min_speedup`, or name another `gpu`.",
            )
        return max(k for k, speedup in enumerate(self.speedup) if speedup >= min_speedup)

    def to_json(self) -> list[dict[str, Any]]:
        """Return one point for each number of layers left dense; ``left_dense`` is the last one of them."""
        unknown = (None,) * len(self.error)
        columns = {
            "left_dense": ("", *self.names),
            "sparsity": self.sparsity,
            "error": self.error,
            "expected_disagreement": self.expected or unknown,
            "speedup": self.speedup or unknown,
        }
        return [dict(zip(columns, row)) for row in zip(*columns.values(), strict=True)]

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
