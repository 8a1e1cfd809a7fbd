"""Counts the operations and the bytes of each node of an ONNX graph, from its shapes."""

from __future__ import annotations

__all__ = ["BYTES_PER_VALUE", "Workload", "read_workloads"]

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Dict, Optional, Sequence

from deploy.graph.tensors import Shape, infer_tensors

BYTES_PER_VALUE = 2
"""Bytes of an activation or a weight in FP16, the widest type with sparse kernels."""

_LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
# Operators with kernels of their own that memory bounds. Builders fuse elementwise operators, so they are not here.
_MOVERS = frozenset(
    {"AveragePool", "Concat", "GlobalAveragePool", "GlobalMaxPool", "LayerNormalization", "MaxPool", "ReduceMean"}
    | {"Resize", "Softmax", "Transpose"}
)


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
    known = {name: tensor.shape for name, tensor in infer_tensors(model, shapes).items()}
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
