"""Finds what an ONNX graph does to a layer's outputs: a constant that can take up a shift, a batch norm's scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor

from export.importing.stored_tensors import StoredTensor, StoredTensors
from sparsegpt_core.network import batch_norm_scale

__all__ = ["ShiftConstant", "find_output_scale", "find_shift_constant"]

_GAMMA, _MEAN, _VARIANCE = 1, 3, 4  # places among the inputs of BatchNormalization


@dataclass(frozen=True)
class ShiftConstant:
    """A constant that the only reader of a layer's outputs adds to them or subtracts from them."""

    name: str
    """The tensor that the reader reads."""
    stored: StoredTensor
    """Where the file stores it."""
    shape: tuple[int, ...]
    """Its shape, with one value for each output channel."""
    dtype: np.dtype[Any]
    """Its type as the reader reads it."""
    sign: int
    """1 if it is added, -1 if it is subtracted."""


def find_shift_constant(
    graph: onnx.GraphProto, tensors: StoredTensors, output: str, rows: int, channel_axis: int
) -> ShiftConstant | None:
    """Return the constant that a layer's outputs are shifted by; None if there is none of its own.

    It is the mean of a BatchNormalization, or the other operand of an Add or Sub; Cast, Identity and Transpose may come
    before them.

    Args:
        graph: The graph.
        tensors: Its constants.
        output: The layer's output.
        rows: K, the number of output channels.
        channel_axis: The axis of the output channels, counted from the end (-1 is the last).

    Example:
        >>> import onnx.parser
        >>> graph = onnx.parser.parse_graph('''
        ...     g (float[N, 2] x) => (float[N, 2] y)
        ...     <float[2, 2] w = {1.0, 2.0, 3.0, 4.0}, float[2] b = {5.0, 6.0}> { p = MatMul(x, w)  y = Add(p, b) }
        ... ''')
        >>> found = find_shift_constant(graph, StoredTensors(graph), "p", 2, -1)
        >>> found.name, found.shape, found.sign
        ('b', (2,), 1)
    """
    reader = _find_reader(graph, tensors, output, channel_axis)
    if reader is None:
        return None
    node, output, channel_axis = graph.node[reader.index], reader.reads, reader.channel_axis
    if reader.is_batch_norm:
        name, sign = node.input[_MEAN], -1
        wanted: list[tuple[int, ...]] = [(rows,)]
    elif node.op_type in ("Add", "Sub") and len(node.input) == 2 and [*node.input].count(output) == 1:
        place = 1 - [*node.input].index(output)
        if node.op_type == "Sub" and place == 0:
            return None
        name, sign = node.input[place], 1 if node.op_type == "Add" else -1
        shape = (rows, *(1,) * (-1 - channel_axis))
        wanted = [shape, (1, *shape)]
    else:
        return None
    value, stored = tensors.constants.value(name), tensors.find(name)
    alone = stored is not None and tensors.readers(stored.name) == {reader.index}
    if value is None or stored is None or not alone or value.shape not in wanted:
        return None
    return ShiftConstant(name, stored, value.shape, value.dtype, sign)


def find_output_scale(
    graph: onnx.GraphProto, tensors: StoredTensors, output: str, rows: int, channel_axis: int
) -> Tensor | None:
    """Return the scale of the BatchNormalization that alone reads a layer's outputs; None without one.

    Args:
        graph: The graph.
        tensors: Its constants.
        output: The layer's output.
        rows: K, the number of output channels.
        channel_axis: The axis of the output channels, counted from the end.
    """
    reader = _find_reader(graph, tensors, output, channel_axis)
    if reader is None or not reader.is_batch_norm:
        return None
    node = graph.node[reader.index]
    gamma, variance = (tensors.constants.value(node.input[place]) for place in (_GAMMA, _VARIANCE))
    if gamma is None or variance is None or gamma.shape != (rows,):
        return None
    epsilon = next((each.f for each in node.attribute if each.name == "epsilon"), 1e-5)
    return batch_norm_scale(torch.from_numpy(np.array(variance)), torch.from_numpy(np.array(gamma)), epsilon)


@dataclass(frozen=True)
class _Reader:
    """The only node that reads a layer's outputs, apart from Cast, Identity and Transpose before it."""

    index: int
    """Its index."""
    reads: str
    """What it reads of them."""
    channel_axis: int
    """The axis of the output channels there, counted from the end."""
    is_batch_norm: bool
    """Whether it is a BatchNormalization of these channels."""


def _find_reader(
    graph: onnx.GraphProto, tensors: StoredTensors, output: str, channel_axis: int, *, is_axis_1: bool = True
) -> _Reader | None:
    readers = tensors.direct_readers(output)
    if len(readers) != 1 or readers[0] < 0:
        return None
    node = graph.node[readers[0]]
    if node.op_type in ("Cast", "Identity"):
        return _find_reader(graph, tensors, node.output[0], channel_axis, is_axis_1=is_axis_1)
    if node.op_type == "Transpose":
        permutation = next(([*each.ints] for each in node.attribute if each.name == "perm"), [])
        dimensions = len(permutation)
        if dimensions + channel_axis not in permutation:
            return None
        axis = permutation.index(dimensions + channel_axis)
        return _find_reader(graph, tensors, node.output[0], axis - dimensions, is_axis_1=axis == 1)
    is_norm = node.op_type == "BatchNormalization" and len(node.input) > _VARIANCE and node.input[0] == output
    return _Reader(readers[0], output, channel_axis, is_norm and is_axis_1)
