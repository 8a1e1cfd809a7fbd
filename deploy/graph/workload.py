"""Counts the operations and the bytes of each node of an ONNX graph, from its shapes."""

from __future__ import annotations

__all__ = ["BYTES_PER_VALUE", "Product", "Workload", "read_workloads"]

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
class Product:
    """The matrix product that a layer is: ``rows`` × ``channels``·``taps`` by ``channels``·``taps`` × ``columns``."""

    rows: int
    """Output positions of all images; input positions of a transposed convolution."""
    columns: int
    """Output channels of one group; times kernel positions in a transposed convolution."""
    channels: int
    """Input channels of one group, which the product sums over."""
    taps: int = 1
    """Kernel positions, which the product sums over too."""
    groups: int = 1
    """Products of this size, such as the groups of a convolution."""

    @property
    def flops(self) -> int:
        """Floating-point operations; a multiply-add counts as two."""
        return 2 * self.rows * self.columns * self.channels * self.taps * self.groups


@dataclass(frozen=True)
class Workload:
    """The work of one node in FP16."""

    bytes: int
    """Bytes of activations and weights that the node reads or writes."""
    weight_bytes: int = 0
    """Bytes of the weights alone."""
    product: Optional[Product] = None
    """The matrix product; None for an operator that only moves data."""

    @property
    def flops(self) -> int:
        """Floating-point operations; a multiply-add counts as two."""
        return self.product.flops if self.product else 0


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
        >>> work = read_workloads(model, {"x": (4, 2)})["y"]
        >>> work.flops, work.bytes, work.weight_bytes  # 4·2·3 multiply-adds; 4·2 + 2·3 + 4·3 values of two bytes
        (48, 52, 12)
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
        return Workload(moved)
    if len(shapes) != 3 or 0 in sizes:
        return None
    return Workload(moved, BYTES_PER_VALUE * sizes[1], _product(node, shapes, sizes))


def _product(node: Any, shapes: Sequence[Shape], sizes: Sequence[int]) -> Product:
    weight, attributes = shapes[1], {each.name: each.i for each in node.attribute}
    groups, taps = attributes.get("group", 1), math.prod(weight[2:])
    if node.op_type == "ConvTranspose":  # weight (C, K / groups, R, S): each input value meets K / groups · R · S
        return Product(sizes[0] // weight[0], weight[1] * taps, weight[0] // groups, 1, groups)
    if node.op_type == "Conv":  # weight (K, C / groups, R, S): each output value sums C / groups · R · S
        return Product(sizes[2] // weight[0], weight[0] // groups, weight[1], taps, groups)
    if len(weight) == 1:
        return Product(sizes[2], 1, weight[0])
    columns, channels = weight[-2:] if attributes.get("transB") else weight[:-3:-1]
    groups = math.prod(weight[:-2])
    return Product(sizes[2] // columns // groups, columns, channels, 1, groups)
