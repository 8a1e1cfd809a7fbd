"""Corrects the casts that ONNX Runtime's FP16 converter inserts."""

from __future__ import annotations

from collections.abc import Iterable, Set
from typing import Any

import onnx

__all__ = ["replace_items", "tidy_casts"]


def tidy_casts(graph: onnx.GraphProto, original: Set[str]) -> None:
    """Connect neighbouring FP32 nodes without casts, and keep one of several equal casts.

    The converter casts to FP16 and back between neighbours that both stayed in FP32, which loses their precision and
    range. It also casts a tensor once for every FP32 node that reads it, each time with the same output name, which
    makes the graph invalid.

    Args:
        graph: The converted graph; changed in place.
        original: Names of the nodes before the conversion. All other nodes are the converter's casts.
    """
    casts = {node.output[0]: node for node in graph.node if node.name not in original}
    # A cast of a cast goes back to FP32: replace it by the tensor before both.
    before = {name: casts[cast.input[0]].input[0] for name, cast in casts.items() if cast.input[0] in casts}
    outputs, inputs = ({each.name for each in values} for values in (graph.output, graph.input))
    nodes = [node for node in graph.node if node.name in original]
    used = outputs.union(before.get(name, name) for node in nodes for name in node.input)
    kept = {name: cast for name, cast in casts.items() if name in used and name not in before}
    # A tensor gets its old name back where no cast has that name any more. The graph's outputs keep their names.
    free = [name for name in casts if name not in used and name not in before]
    names = {casts[name].input[0]: name for name in free if casts[name].input[0] not in inputs}
    names |= {before[name]: name for name in outputs & before.keys()}
    nodes += kept.values()
    for node in nodes:
        for tensors in (node.input, node.output):
            tensors[:] = [names.get(name, name) for name in (before.get(each, each) for each in tensors)]
    replace_items(graph.node, nodes)
    computed = {name for node in nodes for name in node.output}
    replace_items(graph.value_info, [each for each in graph.value_info if each.name in computed - outputs])
    for each in graph.value_info:
        if each.name in names.values():
            each.type.tensor_type.elem_type = onnx.TensorProto.FLOAT


def replace_items(field: Any, content: Iterable[Any]) -> None:
    """Replace all items of a repeated protobuf field."""
    content = list(content)
    del field[:]
    field.extend(content)
