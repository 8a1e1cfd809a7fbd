"""Sparsity patterns and where a weight breaks one. NumPy only: the auditor runs without torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Optional, Union

import numpy as np
import numpy.typing as npt

from sparsegpt_core.errors import InputError

__all__ = ["NM", "Pattern", "Unstructured", "Violations", "find_violations", "parse_pattern"]


@dataclass(frozen=True)
class NM:
    """At most ``n`` non-zeros in every group of ``m`` consecutive input channels."""

    n: int
    m: int

    def __post_init__(self) -> None:
        if not 0 < self.n < self.m:
            raise InputError(f"pattern {self.n}:{self.m} needs 0 < N < M", "For example 2:4.")

    def __str__(self) -> str:
        return f"{self.n}:{self.m}"

    @property
    def sparsity(self) -> float:
        """The fraction of zeros that the pattern enforces."""
        return 1 - self.n / self.m


@dataclass(frozen=True)
class Unstructured:
    """A fraction of zeros anywhere in a layer."""

    sparsity: float

    def __post_init__(self) -> None:
        if not 0 < self.sparsity < 1:
            raise InputError(f"sparsity {self.sparsity:g} needs to lie between 0 and 1", "For example 0.5.")

    def __str__(self) -> str:
        return f"{self.sparsity:g}"


Pattern = Union[NM, Unstructured]


def parse_pattern(text: str) -> Pattern:
    """Read ``"2:4"`` (N:M), ``"0.5"`` or ``"50%"`` (unstructured fraction of zeros).

    Raises:
        InputError: The text is neither, or its numbers make no pattern.
    """
    try:
        if ":" in text:
            n, m = text.split(":")
            return NM(int(n), int(m))
        if text.endswith("%"):
            return Unstructured(float(text[:-1]) / 100)
        return Unstructured(float(text))
    except ValueError:
        raise InputError(
            f"unknown pattern '{text}'", "Use N:M such as 2:4, or a fraction of zeros such as 0.5."
        ) from None


@dataclass(frozen=True)
class Violations:
    """Groups of one weight that break an N:M pattern, and the non-zeros of the whole weight.

    ``first`` is the index of the first offending group in the weight's own axes, the group's number
    standing on the pattern's axis: (k, c-group, r, s) for a convolution weight. None where all obey.
    """

    count: int
    groups: int
    nonzeros: int
    first: Optional[tuple[int, ...]]


def find_violations(weight: npt.NDArray[Any], pattern: NM, axis: int) -> Violations:
    """Count the groups of M consecutive entries along ``axis`` that hold more than N non-zeros.

    NaN counts as non-zero.

    Args:
        weight: Any shape; its ``axis`` must be a multiple of M long.
        pattern: The N:M pattern.
        axis: The axis the groups run along: 1 for a convolution weight (K, C, R, S).

    Raises:
        InputError: The axis is not a multiple of M long.
    """
    length = weight.shape[axis]
    if length % pattern.m:
        raise InputError(f"axis {axis} of shape {weight.shape} is not a multiple of {pattern.m} long")
    shape = (*weight.shape[:axis], length // pattern.m, *weight.shape[axis + 1 :])
    outer, inner = math.prod(shape[: axis + 1]), math.prod(shape[axis + 1 :])
    nonzero = (weight != 0).reshape(outer, pattern.m, inner)
    # M strided adds of bytes: several times faster than a reduction over a short axis.
    counts = nonzero[:, 0].astype(np.uint8 if pattern.m < 256 else np.int64)
    for index in range(1, pattern.m):
        counts += nonzero[:, index]
    offending = counts > pattern.n
    count = int(np.count_nonzero(offending))
    first = None
    if count:
        first = tuple(int(i) for i in np.unravel_index(int(offending.argmax()), shape))
    return Violations(count=count, groups=offending.size, nonzeros=int(np.count_nonzero(nonzero)), first=first)
