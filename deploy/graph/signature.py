"""Describes an engine's inputs and outputs, as its sidecar records them."""

from __future__ import annotations

__all__ = ["TensorSignature", "graph_signature"]

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Tuple, Union

from deploy.graph.onnx_graph import Graph, type_name
from deploy.graph.shapes import ShapeRange

Dim = Union[int, str, None]
"""A size; for a dynamic dimension its name, or None without a name."""


@dataclass(frozen=True)
class TensorSignature:
    """An input or output of an engine."""

    name: str
    """The tensor's name in the graph."""
    dtype: str
    """ONNX's name of the type, such as ``FLOAT16``."""
    dims: Optional[Tuple[Dim, ...]]
    """The graph's dimensions; None for an output without a shape."""
    shapes: Optional[Tuple[Tuple[Optional[int], ...], ...]]
    """The min, opt and max shape. A size of an output is None where no input has a dimension of that name."""


def graph_signature(
    graph: Graph, profile: Mapping[str, ShapeRange]
) -> Tuple[List[TensorSignature], List[TensorSignature]]:
    """Describe the inputs and the outputs of an engine.

    Args:
        graph: The graph that the engine is built from.
        profile: The min, opt and max shape of each input.

    Example:
        >>> import onnx
        >>> model = onnx.parser.parse_model('''
        ...     <ir_version: 8, opset_import: ["": 17]>
        ...     g (float[N, 8] x) => (float[N, 8] y) { y = Relu(x) }''')
        >>> graph = Graph(model, {"x": (None, 8)}, types=frozenset(), quantized=False)
        >>> inputs, outputs = graph_signature(graph, {"x": ((1, 8), (8, 8), (32, 8))})
        >>> outputs[0].dims, outputs[0].shapes
        (('N', 8), ((1, 8), (8, 8), (32, 8)))
    """
    inputs = [value for value in graph.model.graph.input if value.name in graph.inputs]
    sizes: List[Dict[Dim, int]] = [{}, {}, {}]
    for value in inputs:
        for known, shape in zip(sizes, profile[value.name]):
            known.update(zip(_dims(value) or (), shape))
    return (
        [TensorSignature(value.name, _dtype(value), _dims(value), profile[value.name]) for value in inputs],
        [_output(value, sizes) for value in graph.model.graph.output],
    )


def _output(value: Any, sizes: List[Dict[Dim, int]]) -> TensorSignature:
    dims = _dims(value)
    shapes = None if dims is None else tuple(tuple(_size(dim, known) for dim in dims) for known in sizes)
    return TensorSignature(value.name, _dtype(value), dims, shapes)


def _size(dim: Dim, known: Mapping[Dim, int]) -> Optional[int]:
    return dim if isinstance(dim, int) else known.get(dim) if dim else None


def _dtype(value: Any) -> str:
    return type_name(value.type.tensor_type.elem_type)


def _dims(value: Any) -> Optional[Tuple[Dim, ...]]:
    kind = value.type.tensor_type
    if not kind.HasField("shape"):
        return None
    return tuple(dim.dim_value if dim.dim_value > 0 else dim.dim_param or None for dim in kind.shape.dim)
