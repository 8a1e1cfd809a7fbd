"""Which products of kernel positions a convolution's Hessian shares, and where they differ.

Block (t, t') of the Hessian is a sum over output positions: the pixel that tap t sees times the pixel that tap t'
sees. All pairs of taps at one displacement multiply the same pixels with each other. Only the windows of their sums
differ, by strips at the border. So the pairs at one displacement share their sum over the pixels that all their
windows cover, and each strip is summed once: a stride-1 3×3 kernel has 45 pairs t ≤ t' but 13 displacements. Zero
padding contributes nothing and is left out. With a stride, pixels have phases (their index modulo the stride), and
pairs share pixels only where their phases agree as well. Everything here is integer geometry; nothing is approximate.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections import defaultdict
from dataclasses import dataclass

__all__ = ["Axis", "Displacement", "Shared", "find_displacements"]


@dataclass(frozen=True)
class Axis:
    """One spatial axis of a convolution: tap t sees pixel stride · p + dilation · t − padding at output p."""

    size: int
    """The number of pixels."""
    kernel: int
    """The number of taps."""
    stride: int
    dilation: int
    padding: int
    """The number of zeros before the first pixel."""
    out: int
    """The number of outputs."""

    def place(self, tap: int) -> tuple[int, int]:
        """Return (m, phase): at output p the tap sees element p + m of the pixels of that phase."""
        return divmod(tap * self.dilation - self.padding, self.stride)

    def extent(self, phase: int) -> int:
        """Return the number of pixels of a phase: those with index stride · i + phase."""
        return max(0, -(-(self.size - phase) // self.stride))

    def outputs(self, tap: int) -> range:
        """Return the outputs at which the tap sees a pixel and no padding."""
        first, phase = self.place(tap)
        return range(max(0, -first), max(0, -first, min(self.out, self.extent(phase) - first)))


@dataclass(frozen=True)
class Shared:
    """The pairs of taps (t, t') of one axis that multiply the same pixels.

    They multiply element i of phase ``phases[0]`` with element i + ``shift`` of phase ``phases[1]``.
    """

    taps: tuple[tuple[int, int], ...]
    """The pairs (t, t')."""
    phases: tuple[int, int]
    """The phases that t and t' see."""
    shift: int
    """How many elements t' is ahead of t."""
    segments: tuple[tuple[int, int], ...]
    """[start, stop) of i: every pair sums over some of these segments."""
    covers: tuple[tuple[bool, ...], ...]
    """For each pair, the segments of its sum."""


@dataclass(frozen=True)
class Displacement:
    """The pairs of taps of a whole kernel at one displacement: the product of its axes."""

    axes: tuple[Shared, ...]

    @property
    def boxes(self) -> list[tuple[tuple[int, int], ...]]:
        """The boxes of pixels to sum over, each as (start, stop) per axis."""
        return list(itertools.product(*(axis.segments for axis in self.axes)))

    @property
    def covers(self) -> list[list[bool]]:
        """For each pair of :meth:`pairs`, the boxes of its sum."""
        members = itertools.product(*(axis.covers for axis in self.axes))
        return [[all(parts) for parts in itertools.product(*member)] for member in members]

    @property
    def positions(self) -> int:
        """The number of pixels in all boxes together: the length of the product."""
        return math.prod(sum(stop - start for start, stop in axis.segments) for axis in self.axes)

    def pairs(self, kernel: tuple[int, ...]) -> list[tuple[int, int]]:
        """Return the pairs as indices of taps, the last axis of the ``kernel`` fastest."""
        pairs = []
        for members in itertools.product(*(axis.taps for axis in self.axes)):
            left = right = 0
            for size, (t, u) in zip(kernel, members):
                left, right = left * size + t, right * size + u
            pairs.append((left, right))
        return pairs


@functools.lru_cache(maxsize=256)
def find_displacements(axes: tuple[Axis, ...]) -> tuple[Displacement, ...]:
    """Return the displacements with t ≤ t'. By symmetry they determine the whole Hessian.

    A pair is left out if one of its taps sees only padding wherever the other sees pixels: its block is 0.
    """
    products = itertools.product(*(_shared(axis) for axis in axes))
    zero = (0,) * len(axes)
    return tuple(
        Displacement(shared) for shared in products if tuple(s.taps[0][1] - s.taps[0][0] for s in shared) >= zero
    )


def _shared(axis: Axis) -> list[Shared]:
    groups: dict[tuple[int, int, int], list[tuple[int, int]]] = defaultdict(list)
    for t, u in itertools.product(range(axis.kernel), repeat=2):
        (first, phase), (second, other) = axis.place(t), axis.place(u)
        groups[phase, other, second - first].append((t, u))
    shared = (_segments(axis, taps, *key) for key, taps in groups.items())
    return [group for group in shared if group.segments]


def _segments(axis: Axis, taps: list[tuple[int, int]], phase: int, other: int, shift: int) -> Shared:
    low, high = max(0, -shift), min(axis.extent(phase), axis.extent(other) - shift)
    starts = [axis.place(t)[0] for t, _ in taps]
    windows = [(max(low, start), min(high, start + axis.out)) for start in starts]
    cuts = sorted({cut for window in windows if window[0] < window[1] for cut in window})
    segments = [
        (start, stop)
        for start, stop in itertools.pairwise(cuts)
        if any(first <= start and stop <= last for first, last in windows)
    ]
    covers = tuple(tuple(first <= start and stop <= last for start, stop in segments) for first, last in windows)
    return Shared(tuple(taps), (phase, other), shift, tuple(segments), covers)
