"""Finds the constants that an ONNX graph adds to a layer's outputs anyway, so that they can take up a shift."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from export.importing.stored_tensors import StoredTensor, StoredTensors

__all__ = ["ShiftConstant", "find_shift_constant"]

_MEAN = 3  # the place of the mean among the inputs of BatchNormalization


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
    graph: onnx.GraphProto,
    tensors: StoredTensors,
    output: str,
    rows: int,
    channel_axis: int,
    *,
    is_axis_1: bool = True,
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
        is_axis_1: Whether that is the axis of BatchNormalization's channels, the second.

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
    readers = tensors.direct_readers(output)
    if len(readers) != 1 or readers[0] < 0:
        return None
    node = graph.node[readers[0]]
    if node.op_type in ("Cast", "Identity"):
        return find_shift_constant(graph, tensors, node.output[0], rows, channel_axis, is_axis_1=is_axis_1)
    if node.op_type == "Transpose":
        permutation = next(([*each.ints] for each in node.attribute if each.name == "perm"), [])
        dimensions = len(permutation)
        if dimensions + channel_axis not in permutation:
            return None
        axis = permutation.index(dimensions + channel_axis)
        return find_shift_constant(graph, tensors, node.output[0], rows, axis - dimensions, is_axis_1=axis == 1)
    is_norm = node.op_type == "BatchNormalization" and len(node.input) > _MEAN and node.input[0] == output
    if is_norm and is_axis_1:
        name, sign = node.input[_MEAN], -1
        wanted: list[tuple[int, ...]] = [(rows,)]
    elif node.op_type in ("Add", "Sub") and [*node.input].count(output) == 1:
        place = 1 - [*node.input].index(output)
        if node.op_type == "Sub" and place == 0:
            return None
        name, sign = node.input[place], 1 if node.op_type == "Add" else -1
        shape = (rows, *(1,) * (-1 - channel_axis))
        wanted = [shape, (1, *shape)]
    else:
        return None
    value, stored = tensors.constants.value(name), tensors.find(name)
    alone = stored is not None and tensors.readers(stored.name) == {readers[0]}
    if value is None or stored is None or not alone or value.shape not in wanted:
        return None
    return ShiftConstant(name, stored, value.shape, value.dtype, sign)
