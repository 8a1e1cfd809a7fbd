"""Counts the operations and the bytes of each node of an ONNX graph, from its shapes."""

from __future__ import annotations

__all__ = ["BYTES_PER_VALUE", "Workload", "read_workloads"]

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Dict, Optional, Sequence, Tuple

from deploy.machine import require
from sparsegpt_core.errors import ModelError

BYTES_PER_VALUE = 2
"""Bytes of an activation or a weight in FP16, the widest type with sparse kernels."""

_LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
# Operators with kernels of their own that memory bounds. Builders fuse elementwise operators, so they are not here.
_MOVERS = frozenset(
    {"AveragePool", "Concat", "GlobalAveragePool", "GlobalMaxPool", "LayerNormalization", "MaxPool", "ReduceMean"}
    | {"Resize", "Softmax", "Transpose"}
)
_MAX_SHAPE_VALUES = 1024  # constants with at most this many values may be shapes, which shape inference reads

Shape = Tuple[int, ...]


@dataclass(frozen=True)
class Workload:
    """The work of one node in FP16."""

    flops: int
    """Floating-point operations; a multiply-add counts as two."""
    bytes: int
    """Bytes of activations and weights that the node reads or writes."""
    weight_bytes: int
    """Bytes of the weights alone."""


def read_workloads(model: Any, shapes: Mapping[str, Sequence[int]]) -> Dict[str, Workload]:
    """Count the work of layers (Conv, ConvTranspose, Gemm, MatMul) and of operators that move data.

    Nodes with unknown shapes and the bodies of If and Loop are left out.

    Args:
        model: An ``onnx.ModelProto``.
        shapes: The concrete shape of each input.

    Returns:
        Workloads by node name; a node without a name goes by its first output.

    Raises:
        ModelError: Shape inference fails.

    Example:
        >>> import onnx
        >>> model = onnx.parser.parse_model('''
        ...     <ir_version: 8, opset_import: ["": 17]>
        ...     g (float[N, 2] x) => (float[N, 3] y) <float[2, 3] w = {1, 2, 3, 4, 5, 6}> { y = MatMul(x, w) }''')
        >>> read_workloads(model, {"x": (4, 2)})  # 4·2·3 multiply-adds; 4·2 + 2·3 + 4·3 values of two bytes
        {'y': Workload(flops=48, bytes=52, weight_bytes=12)}
    """
    known = _infer_shapes(model, shapes)
    found = {}
    for node in model.graph.node:
        if node.op_type in _LAYERS | _MOVERS and node.output:
            tensors = [known.get(name) for name in (*node.input[:2], node.output[0]) if name]
            workload = _workload(node, [shape for shape in tensors if shape is not None])
            if None not in tensors and workload:
                found[node.name or node.output[0]] = workload
    return found


def _workload(node: Any, shapes: Sequence[Shape]) -> Optional[Workload]:
    sizes = [math.prod(shape) for shape in shapes]
    moved = BYTES_PER_VALUE * sum(sizes)
    if node.op_type in _MOVERS:
        return Workload(0, moved, 0)
    if len(shapes) != 3 or 0 in sizes:
        return None
    weight = shapes[1]
    if node.op_type == "ConvTranspose":  # weight (C, K / groups, R, S): each input value meets K / groups · R · S
        products = sizes[0] * (sizes[1] // weight[0])
    elif node.op_type == "Conv":  # weight (K, C / groups, R, S): each output value sums C / groups · R · S
        products = sizes[2] * (sizes[1] // weight[0])
    else:
        transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
        products = sizes[2] * (weight[-1] if transposed or len(weight) == 1 else weight[-2])
    return Workload(2 * products, moved, BYTES_PER_VALUE * sizes[1])


def _infer_shapes(model: Any, shapes: Mapping[str, Sequence[int]]) -> Dict[str, Optional[Shape]]:
    onnx = require("onnx")
    infer, invalid = onnx.shape_inference, onnx.checker.ValidationError
    try:
        inferred = infer.infer_shapes(_light(model, shapes), data_prop=True).graph
    except (infer.InferenceError, invalid, RuntimeError, TypeError, ValueError) as error:
        raise ModelError(f"the graph's shapes cannot be inferred: {error}", "Export the model again.") from error
    return {each.name: _shape(each) for each in (*inferred.input, *inferred.value_info, *inferred.output)}


def _light(model: Any, shapes: Mapping[str, Sequence[int]]) -> Any:
    """Return the model without its large weights, since inference needs only their shapes."""
    graph, helper = model.graph, require("onnx").helper
    kept = [tensor for tensor in graph.initializer if math.prod(tensor.dims) <= _MAX_SHAPE_VALUES]
    weights = {tensor.name: (tensor.data_type, tuple(tensor.dims)) for tensor in graph.initializer}
    inputs = {each.name: (each.type.tensor_type.elem_type, shapes.get(each.name)) for each in graph.input}
    values = [helper.make_tensor_value_info(name, *typed) for name, typed in {**inputs, **weights}.items()]
    outputs = [helper.make_tensor_value_info(each.name, each.type.tensor_type.elem_type, None) for each in graph.output]
    return helper.make_model(
        helper.make_graph(graph.node, "shapes", values, outputs, kept),
        ir_version=model.ir_version,
        opset_imports=model.opset_import,
        functions=model.functions,
    )


def _shape(value: Any) -> Optional[Shape]:
    tensor = value.type.tensor_type
    dims = tuple(int(dim.dim_value) for dim in tensor.shape.dim if dim.HasField("dim_value"))
    return dims if tensor.HasField("shape") and len(dims) == len(tensor.shape.dim) else None
