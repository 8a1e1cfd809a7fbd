"""The blocks of a convolution's Hessian as correlations of its input with itself; nothing is unfolded.

A map is stored as (*spatial, N, C). A tap sees a slice of it, and a run of pixels along the last spatial axis, for all
N samples, is one matrix (pixels · N, C). The products below multiply such views.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from sparsegpt_core.network import ConvLayer
from sparsegpt_core.statistics.displacements import Axis, find_displacements

__all__ = ["Maps", "axes_of", "cross_blocks", "hessian_blocks", "map_of", "phase_maps"]

Maps = Mapping[tuple[int, ...], Tensor]
Box = Sequence[tuple[int, int]]

_MIN_RUN_ROWS = 128  # shorter runs are copied together before they are multiplied


def axes_of(layer: ConvLayer, spatial: Sequence[int]) -> tuple[Axis, ...]:
    """Return the layer's geometry for inputs (N, C, *spatial).

    Padding other than with zeros counts as part of the input: the axes are then those of the padded input.
    """
    flat = layer._reversed_padding_repeated_twice  # (left, right) pairs, last axis first
    axes = []
    for index, size in enumerate(spatial):
        left, right = flat[2 * (len(spatial) - 1 - index) :][:2]
        kernel, stride, dilation = layer.kernel_size[index], layer.stride[index], layer.dilation[index]
        padded = left + size + right
        out = (padded - dilation * (kernel - 1) - 1) // stride + 1
        zeros = layer.padding_mode == "zeros"
        axes.append(Axis(size if zeros else padded, kernel, stride, dilation, left if zeros else 0, out))
    return tuple(axes)


def map_of(parts: Sequence[Tensor]) -> Tensor:
    """Join tensors (N, C, *spatial) along N and lay them out as one map (*spatial, N, C), contiguous."""
    laid = [part.movedim((0, 1), (-2, -1)) for part in parts]
    first = laid[0]
    if len(laid) == 1:
        return first.contiguous()
    joined = first.new_empty(*first.shape[:-2], sum(part.shape[-2] for part in laid), first.shape[-1])
    return torch.cat(laid, dim=-2, out=joined)


def phase_maps(parts: Sequence[Tensor], axes: tuple[Axis, ...]) -> Maps:
    """Return a map of inputs (N, C, *spatial) for each phase of pixels that a tap sees."""
    phases = itertools.product(*(sorted({axis.place(tap)[1] for tap in range(axis.kernel)}) for axis in axes))
    maps = {}
    for phase in phases:
        every = (slice(None), slice(None), *(slice(start, None, axis.stride) for start, axis in zip(phase, axes)))
        maps[phase] = map_of([part[every] for part in parts])
    return maps


def hessian_blocks(maps: Maps, axes: tuple[Axis, ...]) -> Iterator[tuple[int, int, Tensor]]:
    """Yield (t', t, block (C, C)) for the taps t ≤ t' whose block is not zero.

    The block is Σ x' xᵀ over output positions, x' the pixel that t' sees and x the pixel that t sees.
    """
    kernel = tuple(axis.kernel for axis in axes)
    for displacement in find_displacements(axes):
        left, right = (maps[phases] for phases in zip(*(axis.phases for axis in displacement.axes)))
        shifts = [axis.shift for axis in displacement.axes]
        # One product (C, C) for each box of pixels. The block of a pair of taps is the sum of some of them.
        sums = torch.stack([_product(_cut(right, box, shifts), _cut(left, box)) for box in displacement.boxes])
        covers = torch.tensor(displacement.covers, dtype=sums.dtype, device=sums.device)
        # (pairs, boxes) · (boxes, C, C) -> (pairs, C, C)
        blocks = torch.tensordot(covers, sums, dims=1) if covers.numel() > 1 else sums
        for (t, u), block in zip(displacement.pairs(kernel), blocks):
            yield u, t, block


def cross_blocks(maps: Maps, outputs: Tensor, axes: tuple[Axis, ...]) -> Iterator[tuple[int, Tensor]]:
    """Yield (t, block (K, C)) for each tap: Σ y xᵀ over the outputs y, with x the pixel that t sees.

    Args:
        maps: The inputs, by phase.
        outputs: A map (*out, N, K).
        axes: The layer's geometry.
    """
    for index, tap in enumerate(itertools.product(*(range(axis.kernel) for axis in axes))):
        places = [axis.place(t) for t, axis in zip(tap, axes)]
        box = [(span.start, span.stop) for span in (axis.outputs(t) for t, axis in zip(tap, axes))]
        if all(start < stop for start, stop in box):
            seen = maps[tuple(phase for _, phase in places)]
            yield index, _product(_cut(outputs, box), _cut(seen, box, [first for first, _ in places]))


def _cut(x: Tensor, box: Box, shifts: Sequence[int] | None = None) -> Tensor:
    return x[tuple(slice(start + by, stop + by) for (start, stop), by in zip(box, shifts or [0] * len(box)))]


def _product(left: Tensor, right: Tensor) -> Tensor:
    """Return Σ left rightᵀ (A, B) over all but the last axis of (*spatial, N, A) and (*spatial, N, B)."""
    run = left.shape[-3] * left.shape[-2]
    if run < _MIN_RUN_ROWS or (left.is_contiguous() and right.is_contiguous()):
        return left.reshape(-1, left.shape[-1]).T @ right.reshape(-1, right.shape[-1])
    # Each run of pixels is a matrix (run, A): one batched product without a copy.
    left, right = (x.flatten(-3, -2).flatten(0, -3) for x in (left, right))
    return torch.bmm(left.mT, right).sum(0)
