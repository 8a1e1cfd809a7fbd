"""Estimates the GPU memory of an engine from its ONNX graph."""

from __future__ import annotations

__all__ = ["EngineMemory", "estimate_memory"]

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Sequence

from deploy.graph.tensors import infer_tensors


@dataclass(frozen=True)
class EngineMemory:
    """The estimated GPU memory of one engine."""

    weights: int
    """Bytes of all weights, in the types of the file."""
    context: int
    """Bytes of each execution context: inputs, outputs, and the most activations that are alive at one time."""


def estimate_memory(model: Any, shapes: Mapping[str, Sequence[int]]) -> EngineMemory:
    """Estimate the GPU memory of a graph's engine.

    An activation is alive from the node that writes it to the last node that reads it, in the graph's order. TensorRT
    fuses operators, so it needs less for activations. The workspace of its kernels, their code and CUDA's own memory
    come on top and are left out, as are activations of unknown shape and the bodies of If and Loop.

    Args:
        model: An ``onnx.ModelProto`` with its weights.
        shapes: The concrete shape of each input.

    Raises:
        ModelError: Shape inference fails.

    Example:
        >>> import onnx
        >>> model = onnx.parser.parse_model('''
        ...     <ir_version: 8, opset_import: ["": 17]>
        ...     g (float[N, 2] x) => (float[N, 3] y) <float[2, 3] w = {1, 2, 3, 4, 5, 6}>
        ...     { a = MatMul(x, w)  b = Relu(a)  y = Neg(b) }''')
        >>> estimate_memory(model, {"x": (4, 2)})  # 6 weights; 8 + 12 values of x and y, 12 + 12 of a and b
        EngineMemory(weights=24, context=176)
    """
    sizes = {name: tensor.bytes for name, tensor in infer_tensors(model, shapes).items()}
    graph = model.graph
    weights = {each.name for each in graph.initializer}
    weights |= {name for node in graph.node if node.op_type == "Constant" for name in node.output}
    lasting = weights | {each.name for each in (*graph.input, *graph.output)}  # alive as long as the context
    last = {name: place for place, node in enumerate(graph.node) for name in (*node.input, *node.output)}
    alive = most = sum(sizes.get(name, 0) for name in lasting - weights)
    for place, node in enumerate(graph.node):
        alive += sum(sizes.get(name, 0) for name in node.output if name not in lasting)
        most = max(most, alive)
        ended = {name for name in (*node.input, *node.output) if last[name] == place}
        alive -= sum(sizes.get(name, 0) for name in ended - lasting)
    return EngineMemory(sum(sizes.get(name, 0) for name in weights), most)
