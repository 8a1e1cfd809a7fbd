"""Convolution and linear weights as matrices on TensorRT's axis, and the inputs that meet them.

Column j = (r·S + s)·C + c: the input channel runs fastest, so that M consecutive columns are M
consecutive input channels at one kernel position, which is what TensorRT checks. With this order of
columns a convolution is the product of the matrix (K, d) with the columns (d, positions) of its input.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Size, Tensor, nn

__all__ = [
    "ConvLayer",
    "PrunableLayer",
    "input_columns",
    "matrix_to_weight",
    "output_rows",
    "pad_input",
    "sampled_columns",
    "weight_to_matrix",
]

ConvLayer = nn.Conv1d | nn.Conv2d | nn.Conv3d


PrunableLayer = ConvLayer | nn.Linear


def weight_to_matrix(weight: Tensor) -> Tensor:
    """Lay a weight (K, C, *kernel) out as a matrix (K, d), d = prod(kernel)·C, columns (r, s, c)."""
    return weight.movedim(1, -1).reshape(weight.shape[0], -1)


def matrix_to_weight(matrix: Tensor, shape: Size | Sequence[int]) -> Tensor:
    """Undo :func:`weight_to_matrix`: (K, d) back to a contiguous weight of the given ``shape``."""
    rows, channels, *kernel = shape
    return matrix.reshape(rows, *kernel, channels).movedim(-1, 1).contiguous()


def input_columns(layer: PrunableLayer, x: Tensor) -> Tensor:
    """Return what each row of the weight matrix is multiplied with (im2col).

    Padding (with its mode), stride and dilation are the layer's own.

    Args:
        layer: A linear layer or an ungrouped convolution.
        x: Its input: (N, C, *spatial) for convolutions, (..., C) for linear layers.

    Returns:
        (positions, d): one row for every output position of every sample.
    """
    if isinstance(layer, nn.Linear):
        return x.reshape(-1, x.shape[-1])
    x = pad_input(layer, x).movedim(1, -1)
    taps = [x[window] for window in _windows(layer, x.shape[1:-1])]
    if len(taps) == 1:  # a view, where the memory allows it
        return taps[0].reshape(-1, x.shape[-1])
    return torch.stack(taps, dim=-2).reshape(-1, len(taps) * x.shape[-1])


def sampled_columns(layer: PrunableLayer, x: Tensor, positions: Tensor) -> Tensor:
    """Return the rows of :func:`input_columns` at some output positions of each sample, without the others.

    Args:
        layer: A linear layer or an ungrouped convolution.
        x: Its input: (N, C, *spatial) for convolutions, (N, ..., C) for linear layers.
        positions: (N, m), flat indices of output positions of each sample.

    Returns:
        (N·m, d).
    """
    if isinstance(layer, nn.Linear):
        x, seen = x.reshape(x.shape[0], -1, x.shape[-1]), torch.arange(x.shape[1:-1].numel())[:, None]
    else:
        x = pad_input(layer, x).movedim(1, -1)
        cells = torch.arange(x.shape[1:-1].numel()).reshape(1, *x.shape[1:-1])
        seen = torch.stack([cells[window].flatten() for window in _windows(layer, x.shape[1:-1])], dim=-1)
        x = x.flatten(1, -2)
    first = torch.arange(x.shape[0]) * x.shape[1]
    rows = (first[:, None, None] + seen[positions]).flatten().to(x.device)
    return x.reshape(-1, x.shape[-1]).index_select(0, rows).reshape(positions.numel(), -1)


def output_rows(layer: PrunableLayer, y: Tensor) -> Tensor:
    """Return a layer's output as (positions, K), in the order of :func:`input_columns`."""
    return (y if isinstance(layer, nn.Linear) else y.movedim(1, -1)).reshape(-1, layer.weight.shape[0])


def pad_input(layer: ConvLayer, x: Tensor) -> Tensor:
    """Pad an input (N, C, *spatial) as the layer does; the input itself where it does not."""
    # The layer's own (left, right) pairs, last dimension first: right for 'same' with even kernels too.
    padding = tuple(layer._reversed_padding_repeated_twice)
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    return F.pad(x, padding, mode=mode) if any(padding) else x


def _windows(layer: ConvLayer, spatial: Sequence[int]) -> list[tuple[slice, ...]]:
    """The slice of the padded channels-last input that each kernel position sees, in (r, s) order."""
    axes = []
    for size, kernel, stride, dilation in zip(spatial, layer.kernel_size, layer.stride, layer.dilation, strict=True):
        last = (size - dilation * (kernel - 1) - 1) // stride * stride
        axes.append([slice(tap * dilation, tap * dilation + last + 1, stride) for tap in range(kernel)])
    return list(itertools.product([slice(None)], *axes))
