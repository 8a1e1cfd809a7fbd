"""Sparsity patterns, and the search for violations in a weight. Loads no torch: the audit runs without it."""

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
    """At most N non-zeros in every group of M consecutive input channels.

    Example:
        >>> str(NM(2, 4)), NM(2, 4).sparsity
        ('2:4', 0.5)
    """

    n: int
    """The largest number of non-zeros in a group."""
    m: int
    """The size of a group, in input channels."""

    def __post_init__(self) -> None:
        if not 0 < self.n < self.m:
            raise InputError(f"pattern {self.n}:{self.m} needs 0 < N < M", "For example 2:4.")

    def __str__(self) -> str:
        return f"{self.n}:{self.m}"

    @property
    def sparsity(self) -> float:
        """The smallest fraction of zeros of a weight that obeys the pattern."""
        return 1 - self.n / self.m


@dataclass(frozen=True)
class Unstructured:
    """A fraction of zeros anywhere in a layer.

    Example:
        >>> str(Unstructured(0.9))
        '0.9'
    """

    sparsity: float
    """The fraction of zeros."""

    def __post_init__(self) -> None:
        if not 0 < self.sparsity < 1:
            raise InputError(f"a sparsity of {self.sparsity:g} is not between 0 and 1", "For example 0.5.")

    def __str__(self) -> str:
        return f"{self.sparsity:g}"


Pattern = Union[NM, Unstructured]


def parse_pattern(text: str) -> Pattern:
    """Read ``"2:4"`` (N:M), ``"0.5"`` or ``"50%"`` (unstructured fraction of zeros).

    Raises:
        InputError: The text is neither, or its numbers are not a valid pattern.

    Example:
        >>> parse_pattern("2:4"), parse_pattern("90%")
        (NM(n=2, m=4), Unstructured(sparsity=0.9))
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
    """The violations of an N:M pattern in one weight."""

    count: int
    """The number of groups with more than N non-zeros."""
    groups: int
    """The number of all groups."""
    nonzeros: int
    """The number of non-zeros of the whole weight."""
    first: Optional[tuple[int, ...]]
    """The index of the first such group in the weight's axes, with the number of the group on the pattern's axis:
    (k, c-group, r, s) for a convolution weight. None if all groups obey."""


def find_violations(weight: npt.NDArray[Any], pattern: NM, axis: int) -> Violations:
    """Count the groups of M consecutive entries along an axis that have more than N non-zeros.

    NaN counts as non-zero.

    Args:
        weight: The weight, of any shape. The length of its ``axis`` must be a multiple of M.
        pattern: The N:M pattern.
        axis: The axis of the groups: 1 for a convolution weight (K, C, R, S).

    Raises:
        InputError: The length of the axis is not a multiple of M.

    Example:
        >>> find_violations(np.array([[1, 0, 2, 0], [1, 2, 3, 0]]), NM(2, 4), axis=1)
        Violations(count=1, groups=2, nonzeros=5, first=(1, 0))
    """
    length = weight.shape[axis]
    if length % pattern.m:
        raise InputError(f"the length of axis {axis} of shape {weight.shape} is not a multiple of {pattern.m}")
    shape = (*weight.shape[:axis], length // pattern.m, *weight.shape[axis + 1 :])
    outer, inner = math.prod(shape[: axis + 1]), math.prod(shape[axis + 1 :])
    nonzero = (weight != 0).reshape(outer, pattern.m, inner)  # (groups before the axis, M, entries after it)
    # M strided additions of bytes are several times faster than a reduction over a short axis.
    counts = nonzero[:, 0].astype(np.uint8 if pattern.m < 256 else np.int64)
    for index in range(1, pattern.m):
        counts += nonzero[:, index]
    offending = counts > pattern.n
    count = int(np.count_nonzero(offending))
    first = None
    if count:
        first = tuple(int(i) for i in np.unravel_index(int(offending.argmax()), shape))
    return Violations(count=count, groups=offending.size, nonzeros=int(np.count_nonzero(nonzero)), first=first)
