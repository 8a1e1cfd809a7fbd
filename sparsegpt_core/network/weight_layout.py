"""Convolution and linear weights as matrices on TensorRT's axis, and the inputs that multiply them.

Column j = (r·S + s)·C + c. The input channel runs fastest, so M consecutive columns are M consecutive input channels
at one kernel position, which is what TensorRT checks. With this order of columns a convolution is the product of the
matrix (K, d) with the columns (d, positions) of its input.
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
"""An ungrouped convolution."""

PrunableLayer = ConvLayer | nn.Linear
"""A layer whose weight can be pruned."""


def weight_to_matrix(weight: Tensor) -> Tensor:
    """Lay a weight (K, C, *kernel) out as a matrix (K, d), d = prod(kernel)·C, columns (r, s, c).

    Example:
        >>> import torch
        >>> weight_to_matrix(torch.arange(4).reshape(1, 2, 1, 2))  # (1, 2, 1, 2) -> (1, 4)
        tensor([[0, 2, 1, 3]])
    """
    return weight.movedim(1, -1).reshape(weight.shape[0], -1)


def matrix_to_weight(matrix: Tensor, shape: Size | Sequence[int]) -> Tensor:
    """Undo :func:`weight_to_matrix`: (K, d) back to a contiguous weight of the given ``shape``.

    Example:
        >>> import torch
        >>> weight = torch.randn(6, 4, 3, 3)
        >>> torch.equal(matrix_to_weight(weight_to_matrix(weight), weight.shape), weight)
        True
    """
    rows, channels, *kernel = shape
    return matrix.reshape(rows, *kernel, channels).movedim(-1, 1).contiguous()


def input_columns(layer: PrunableLayer, x: Tensor) -> Tensor:
    """Return the inputs that each row of the weight matrix multiplies (im2col).

    Padding, its mode, stride and dilation are the layer's.

    Args:
        layer: A linear layer or an ungrouped convolution.
        x: Its input: (N, C, *spatial) for convolutions, (..., C) for linear layers.

    Returns:
        (positions, d): one row for every output position of every sample.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> layer, x = nn.Conv2d(4, 8, 3, bias=False), torch.randn(2, 4, 5, 5)
        >>> product = input_columns(layer, x) @ weight_to_matrix(layer.weight).T  # (18, 36) @ (36, 8) -> (18, 8)
        >>> torch.allclose(product, output_rows(layer, layer(x)), atol=1e-5)
        True
    """
    if isinstance(layer, nn.Linear):
        return x.reshape(-1, x.shape[-1])
    x = pad_input(layer, x).movedim(1, -1)
    taps = [x[window] for window in _windows(layer, x.shape[1:-1])]
    if len(taps) == 1:  # a view if the memory layout allows one
        return taps[0].reshape(-1, x.shape[-1])
    return torch.stack(taps, dim=-2).reshape(-1, len(taps) * x.shape[-1])


def sampled_columns(layer: PrunableLayer, x: Tensor, positions: Tensor) -> Tensor:
    """Return the rows of :func:`input_columns` at some output positions of each sample, without computing the others.

    Args:
        layer: A linear layer or an ungrouped convolution.
        x: Its input: (N, C, *spatial) for convolutions, (N, ..., C) for linear layers.
        positions: (N, m), flat indices of output positions of each sample.

    Returns:
        (N·m, d).

    Example:
        >>> import torch
        >>> from torch import nn
        >>> layer, x = nn.Conv2d(4, 8, 3), torch.randn(1, 4, 5, 5)
        >>> positions = torch.tensor([[0, 8]])  # the first and the last of nine
        >>> torch.equal(sampled_columns(layer, x, positions), input_columns(layer, x)[[0, 8]])
        True
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
    """Return a layer's output as (positions, K), in the order of :func:`input_columns`.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> tuple(output_rows(nn.Conv2d(4, 8, 3), torch.randn(2, 8, 3, 3)).shape)
        (18, 8)
    """
    return (y if isinstance(layer, nn.Linear) else y.movedim(1, -1)).reshape(-1, layer.weight.shape[0])


def pad_input(layer: ConvLayer, x: Tensor) -> Tensor:
    """Pad an input (N, C, *spatial) as the layer does; return it unchanged if the layer does not pad.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> tuple(pad_input(nn.Conv2d(4, 8, 3, padding=1), torch.randn(2, 4, 5, 5)).shape)
        (2, 4, 7, 7)
    """
    # PyTorch's own (left, right) pairs, last dimension first. They are also right for 'same' with even kernels.
    padding = tuple(layer._reversed_padding_repeated_twice)
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    return F.pad(x, padding, mode=mode) if any(padding) else x


def _windows(layer: ConvLayer, spatial: Sequence[int]) -> list[tuple[slice, ...]]:
    """The slice of the padded channels-last input that each kernel position reads, in (r, s) order."""
    axes = []
    for size, kernel, stride, dilation in zip(spatial, layer.kernel_size, layer.stride, layer.dilation, strict=True):
        last = (size - dilation * (kernel - 1) - 1) // stride * stride
        axes.append([slice(tap * dilation, tap * dilation + last + 1, stride) for tap in range(kernel)])
    return list(itertools.product([slice(None)], *axes))
