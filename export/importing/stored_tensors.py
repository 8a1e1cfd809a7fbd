"""Finds where an ONNX graph stores a tensor and which nodes read it, and writes new values there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf.message import Message
from onnx import numpy_helper

from export.audit import Constants, embedded, tensor_value, tensors_read

__all__ = ["StoredTensor", "StoredTensors", "with_values"]

Array = npt.NDArray[Any]

_MOVES = ("Identity", "Transpose", "Reshape", "Cast")


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in the file, and the nodes between it and its reader."""

    name: str
    """The initializer, or the output of the Constant node."""
    dtype: np.dtype[Any]
    """Its type in the file."""
    moves: tuple[tuple[onnx.NodeProto, tuple[int, ...]], ...]
    """Identity, Transpose, Reshape and Cast nodes from the reader back to the file, each with the shape it reads."""

    def as_stored(self, value: Array) -> Array:
        """Turn a value as the reader gets it into the value that the file stores."""
        for node, shape in self.moves:
            if node.op_type == "Transpose":
                permutation = next((each.ints for each in node.attribute if each.name == "perm"), None)
                axes = list(permutation) if permutation else list(range(value.ndim))[::-1]
                value = np.transpose(value, np.argsort(axes))
            elif node.op_type == "Reshape":
                value = value.reshape(shape)
        return value.astype(self.dtype, copy=False)


class StoredTensors:
    """The constant tensors of a graph, with their place in the file and their readers.

    Args:
        graph: The graph.

    Example:
        >>> import onnx.parser
        >>> graph = onnx.parser.parse_graph('''
        ...     g (float[N, 2] x) => (float[N, 1] y)
        ...     <float[1, 2] w = {1.0, 3.0}> { t = Transpose(w)  y = MatMul(x, t) }
        ... ''')
        >>> tensors = StoredTensors(graph)
        >>> stored = tensors.find("t")
        >>> stored.name, stored.as_stored(np.float32([[5], [6]])).tolist(), tensors.readers("w")
        ('w', [[5.0, 6.0]], {1})
    """

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.constants = Constants(graph)
        """Their values."""
        self._initializers = {tensor.name for tensor in graph.initializer}
        self._producers = {output: node for node in graph.node for output in node.output}
        self._outputs = {value.name for value in graph.output}
        self._readers: dict[str, list[tuple[int, onnx.NodeProto]]] = {}
        for index, node in enumerate(graph.node):
            for name in dict.fromkeys(tensors_read(node)):
                self._readers.setdefault(name, []).append((index, node))

    def find(self, name: str) -> StoredTensor | None:
        """Return where the file stores a tensor; None for one that new values cannot be written for.

        Such are tensors that other operators compute, for example DequantizeLinear.
        """
        moves: list[tuple[onnx.NodeProto, tuple[int, ...]]] = []
        node = self._producers.get(name)
        while node is not None and node.op_type in _MOVES:
            value = self.constants.value(node.input[0])
            if value is None:
                return None
            moves.append((node, value.shape))
            name = node.input[0]
            node = self._producers.get(name)
        value = self.constants.value(name)
        is_stored = name in self._initializers or (node is not None and node.op_type == "Constant")
        return None if value is None or not is_stored else StoredTensor(name, value.dtype, tuple(moves))

    def initializer(self, name: str) -> Array | None:
        """Return the value of an initializer; None for other tensors."""
        return self.constants.value(name) if name in self._initializers else None

    def direct_readers(self, name: str) -> list[int]:
        """Return the indices of the nodes that read a tensor as it is; -1 for an output of the graph."""
        return [-1] * (name in self._outputs) + [index for index, _ in self._readers.get(name, [])]

    def readers(self, name: str) -> set[int]:
        """Return the indices of the nodes that read a tensor, as it is or moved; -1 for an output of the graph."""
        found = {-1} if name in self._outputs else set()
        for index, node in self._readers.get(name, []):
            found |= self.readers(node.output[0]) if node.op_type in _MOVES and node.input[0] == name else {index}
        return found


def with_values(model: onnx.ModelProto, values: Mapping[str, Array]) -> onnx.ModelProto:
    """Return a copy of a model with other values in initializers and Constant nodes. All else is as it was.

    Args:
        model: The model, which may be larger than 2 GiB.
        values: New values by the name of the initializer or of the Constant's output, in their own shape and type.

    Example:
        >>> import onnx.parser
        >>> model = onnx.parser.parse_model('''
        ...     <ir_version: 8, opset_import: ["": 17]>
        ...     g (float[N, 1] x) => (float[N, 1] y) <float[1, 1] w = {1.0}> { y = MatMul(x, w) }
        ... ''')
        >>> numpy_helper.to_array(with_values(model, {"w": np.float32([[7]])}).graph.initializer[0]).tolist()
        [[7.0]]
    """
    copy = onnx.ModelProto()
    for field, value in model.ListFields():
        if field.name != "graph":
            _assign(copy, field.name, value)
    for field, value in model.graph.ListFields():
        if field.name == "initializer":  # one by one: together they may exceed a message's 2 GiB
            for tensor in value:
                copy.graph.initializer.add().CopyFrom(_replaced(tensor, tensor.name, values))
        else:
            _assign(copy.graph, field.name, value)
    for node in copy.graph.node:
        if node.op_type == "Constant" and node.output[0] in values:
            attribute = next(each for each in node.attribute if each.name.startswith("value"))
            attribute.CopyFrom(onnx.helper.make_attribute("value", _replaced(attribute.t, node.output[0], values)))
    return copy


def _replaced(tensor: onnx.TensorProto, key: str, values: Mapping[str, Array]) -> onnx.TensorProto:
    if key not in values or np.array_equal(tensor_value(tensor), values[key]):
        return embedded(tensor)
    new = numpy_helper.from_array(np.ascontiguousarray(values[key]), tensor.name)
    if tensor.HasField("doc_string"):
        new.doc_string = tensor.doc_string
    return new


def _assign(message: Any, name: str, value: Any) -> None:
    if hasattr(value, "extend"):
        getattr(message, name).extend(value)
    elif isinstance(value, Message):
        getattr(message, name).CopyFrom(value)
    else:
        setattr(message, name, value)
