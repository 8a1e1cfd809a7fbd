"""What goes into an engine and comes out, as its sidecar records it."""

from __future__ import annotations

__all__ = ["TensorSignature", "graph_signature"]

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Tuple, Union

from deploy.graph.onnx_graph import Graph, type_name
from deploy.graph.shapes import ShapeRange

Dim = Union[int, str, None]
"""A size, the name of a dynamic one, or None for a dynamic one without a name."""


@dataclass(frozen=True)
class TensorSignature:
    """An input or output.

    ``dtype`` is ONNX's name of the type, such as ``FLOAT16``; ``dims`` are as the graph has them; None for those of
    an output that the graph does not give. ``shapes`` are the profile's smallest, best and largest shape; those of
    an output follow from the names it shares with the inputs, and hold None where a size does not.
    """

    name: str
    dtype: str
    dims: Optional[Tuple[Dim, ...]]
    shapes: Optional[Tuple[Tuple[Optional[int], ...], ...]]


def graph_signature(
    graph: Graph, profile: Mapping[str, ShapeRange]
) -> Tuple[List[TensorSignature], List[TensorSignature]]:
    """Describe the inputs and outputs of an engine.

    Args:
        graph: What it is built from.
        profile: Smallest, best and largest shape of every input.
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
