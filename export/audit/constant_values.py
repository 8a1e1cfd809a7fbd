"""Computes the values of tensors that an ONNX graph derives from constants."""

from __future__ import annotations

import contextlib
from typing import Any, Callable, Optional

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from export.audit.model_files import tensor_value

__all__ = ["Constants"]

Array = npt.NDArray[Any]

# The errors of computing a tensor of a broken graph: a missing attribute or input, an impossible size.
_INVALID = (ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError, ValueError)

_MAX_CACHED_BYTES = 256 << 20  # a weight is read once, and its scale only by its own layer: a small cache suffices


class Constants:
    """The constant tensors of a graph: initializers, Constant nodes, and what some operators make of them.

    Cast, CastLike, Identity, Transpose, Reshape, QuantizeLinear and DequantizeLinear are computed, because an engine
    sees the zeros of their results. The outputs of other operators count as not constant.

    Args:
        graph: The graph. Its own tensors hide those of ``outer`` with the same name.
        outer: The constants of the graph around it, for the bodies of If and Loop.

    Example:
        >>> import onnx.parser
        >>> graph = onnx.parser.parse_graph('''
        ...     g (float[N] x) => (float[N] y)
        ...     <float[2, 1] w = {1.0, 0.0}> { t = Transpose(w)  y = MatMul(x, t) }
        ... ''')
        >>> constants = Constants(graph)
        >>> constants.value("t").tolist(), constants.source("t")
        ([[1.0, 0.0]], 'w')
        >>> constants.obstacle("y")
        'MatMul y computes it'
    """

    def __init__(self, graph: onnx.GraphProto, outer: Optional[Constants] = None) -> None:
        self._initializers = {tensor.name: tensor for tensor in graph.initializer}
        self._producers = {output: node for node in graph.node for output in node.output}
        self._own = {*self._initializers, *self._producers, *(each.name for each in graph.input)}
        self._outer = outer
        self._values: dict[str, Optional[Array]] = {}
        self._dtypes: dict[str, str] = {}  # of the initializers that were read
        self._cached: dict[str, int] = {}  # bytes of computed values, the oldest first
        self._bytes = 0

    def value(self, name: str) -> Optional[Array]:
        """Return the tensor's value; None if it is not constant."""
        if name in self._initializers:  # not cached: together they are as large as the model
            with contextlib.suppress(*_INVALID):
                value = tensor_value(self._initializers[name])
                self._dtypes[name] = str(value.dtype)
                return value
            return None
        if name not in self._values:
            self._values[name] = None  # a cycle in a broken graph ends here
            with contextlib.suppress(*_INVALID), np.errstate(all="ignore"):
                self._values[name] = self._compute(name)
            self._forget(name)
        return self._values[name]

    def dtype(self, name: str) -> Optional[str]:
        """Return the tensor's NumPy type; of a quantised one, the type of its integers. None if it is not constant.

        Example:
            >>> import onnx.parser
            >>> graph = onnx.parser.parse_graph('''
            ...     g () => (float[2] y) <int8[2] w = {1, 0}, float s = {0.5}> { y = DequantizeLinear(w, s) }
            ... ''')
            >>> Constants(graph).dtype("y"), Constants(graph).dtype("s")
            ('int8', 'float32')
        """
        if self._outer and name not in self._own:
            return self._outer.dtype(name)
        if name in self._dtypes:  # reading a value copies it
            return self._dtypes[name]
        value, node = self.value(name), self._producers.get(name)
        if value is not None and node and node.op_type in ("Identity", "Transpose", "Reshape"):
            return self.dtype(node.input[0])
        if value is not None and node and node.op_type == "DequantizeLinear":
            value = self.value(node.input[0])
        return None if value is None else str(value.dtype)

    def source(self, name: str) -> str:
        """Return the name of the initializer or Constant output that the tensor comes from."""
        seen = set()
        node = self._producers.get(name)
        while node and node.op_type in _FOLLOWED and node.input and name not in seen:
            seen.add(name)
            name = node.input[0]
            node = self._producers.get(name)
        return self._outer.source(name) if self._outer and name not in self._own else name

    def obstacle(self, name: str) -> str:
        """Return why the tensor is not constant."""
        seen = set()
        while name not in seen:
            seen.add(name)
            node = self._producers.get(name)
            if node is None or node.op_type not in _FOLLOWED:
                break
            name = next((each for each in node.input if each and self.value(each) is None), name)
        if name not in self._own and self._outer:
            return self._outer.obstacle(name)
        if node is not None:
            return f"{node.op_type} {node.name or name} computes it"
        return f"{name} is an input of the graph" if name in self._own else f"{name} does not exist"

    def _forget(self, newest: str) -> None:
        """Drop the oldest values if the cache is too large; they are computed again when needed."""
        value = self._values[newest]
        if value is not None:
            self._cached[newest] = value.nbytes
            self._bytes += value.nbytes
        while len(self._cached) > 1 and self._bytes > _MAX_CACHED_BYTES:
            oldest = next(iter(self._cached))
            del self._values[oldest]
            self._bytes -= self._cached.pop(oldest)

    def _compute(self, name: str) -> Optional[Array]:
        if name not in self._own:
            return self._outer.value(name) if self._outer else None
        node = self._producers.get(name)
        if node is not None and node.op_type == "Constant":
            return _constant(node)
        if node is None or node.op_type not in _FOLLOWED:
            return None
        inputs = [self.value(each) if each else None for each in node.input]
        if any(each and value is None for each, value in zip(node.input, inputs)):
            return None
        return _FOLLOWED[node.op_type](node, inputs)


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}


def _constant(node: onnx.NodeProto) -> Optional[Array]:
    for name, value in _attributes(node).items():
        if name == "value":
            return numpy_helper.to_array(value)
        if name in ("value_float", "value_floats"):
            return np.asarray(value, dtype=np.float32)
        if name in ("value_int", "value_ints"):
            return np.asarray(value, dtype=np.int64)
    return None


def _identity(node: onnx.NodeProto, inputs: list[Any]) -> Array:
    value: Array = inputs[0]
    return value


def _cast(node: onnx.NodeProto, inputs: list[Any]) -> Array:
    to = onnx.helper.tensor_dtype_to_np_dtype(_attributes(node)["to"])
    value: Array = inputs[0].astype(to)
    return value


def _cast_like(node: onnx.NodeProto, inputs: list[Any]) -> Array:
    value: Array = inputs[0].astype(inputs[1].dtype)
    return value


def _transpose(node: onnx.NodeProto, inputs: list[Any]) -> Array:
    return np.transpose(inputs[0], _attributes(node).get("perm"))


def _reshape(node: onnx.NodeProto, inputs: list[Any]) -> Array:
    value, shape = inputs[0], [int(size) for size in inputs[1]]
    if not _attributes(node).get("allowzero", 0):
        shape = [value.shape[axis] if size == 0 else size for axis, size in enumerate(shape)]
    reshaped: Array = value.reshape(shape)
    return reshaped


def _quantize(node: onnx.NodeProto, inputs: list[Any]) -> Array:
    value, scale, zero = _aligned(node, inputs)
    if len(inputs) > 2 and inputs[2] is not None:
        kind = inputs[2].dtype
    else:
        kind = onnx.helper.tensor_dtype_to_np_dtype(_attributes(node).get("output_dtype") or onnx.TensorProto.UINT8)
    if "float" in kind.name:  # FP8: the cast rounds
        return (value / scale).astype(kind)
    limits = np.iinfo(kind)  # raises for four-bit types: unknown
    result: Array = np.clip(np.rint(value / scale) + zero, limits.min, limits.max).astype(kind)
    return result


def _dequantize(node: onnx.NodeProto, inputs: list[Any]) -> Array:
    value, scale, zero = _aligned(node, inputs)
    result: Array = (value - zero) * scale
    return result


def _aligned(node: onnx.NodeProto, inputs: list[Any]) -> tuple[Array, Array, Array]:
    """Return value, scale and zero point in float32, in shapes that broadcast."""
    value, scale = inputs[0], inputs[1]
    zero = inputs[2] if len(inputs) > 2 and inputs[2] is not None else np.zeros_like(scale)
    attributes = _attributes(node)
    axis = attributes.get("axis", 1) % max(value.ndim, 1)

    def spread(parameter: Array) -> Array:
        parameter = parameter.astype(np.float32)
        if attributes.get("block_size"):
            repeated = np.repeat(parameter, min(attributes["block_size"], value.shape[axis]), axis=axis)
            return repeated.take(range(value.shape[axis]), axis=axis)
        if parameter.ndim == 1 and parameter.size > 1:
            return parameter.reshape([-1 if each == axis else 1 for each in range(value.ndim)])
        return parameter.reshape(()) if parameter.size == 1 else parameter

    return value.astype(np.float32), spread(scale), spread(zero)


_FOLLOWED: dict[str, Callable[[onnx.NodeProto, list[Any]], Array]] = {
    "Identity": _identity,
    "Cast": _cast,
    "CastLike": _cast_like,
    "Transpose": _transpose,
    "Reshape": _reshape,
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
}
