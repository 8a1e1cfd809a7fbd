"""Small questions to an ONNX graph: its inputs, a node's name, its attributes, and the tensors that it reads."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

__all__ = ["graph_inputs", "integer_attribute", "is_custom", "node_name", "tensors_read"]


def graph_inputs(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """Return the inputs of a graph, without the weights that old files list among them.

    Example:
        >>> import onnx.parser
        >>> graph = onnx.parser.parse_graph("g (float[N] x, float w) => (float[N] y) <float w = {1}> { y = Add(x, w) }")
        >>> [value.name for value in graph.input], [value.name for value in graph_inputs(graph)]
        (['x', 'w'], ['x'])
    """
    weights = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in weights]


def node_name(node: onnx.NodeProto) -> str:
    """Return a node's name, or else that of its output.

    Example:
        >>> node_name(onnx.helper.make_node("Relu", ["x"], ["y"])), node_name(onnx.helper.make_node("Nop", [], []))
        ('y', 'Nop')
    """
    return str(node.name or next(iter(node.output), node.op_type))  # protobuf returns bytes if it is not UTF-8


def is_custom(node: onnx.NodeProto) -> bool:
    """Return whether a node's operator is not ONNX's own.

    Example:
        >>> is_custom(onnx.helper.make_node("Relu", ["x"], ["y"], domain="mine"))
        True
    """
    return node.domain not in ("", "ai.onnx")


def integer_attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    """Return an attribute of a node, or its default.

    Example:
        >>> integer_attribute(onnx.helper.make_node("Conv", ["x", "w"], ["y"], group=4), "group", 1)
        4
    """
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == name), default)


def tensors_read(node: onnx.NodeProto) -> Iterator[str]:
    """Yield the tensors that a node reads, those that the bodies of If, Loop and Scan take from outside included.

    Example:
        >>> list(tensors_read(onnx.helper.make_node("Gemm", ["x", "w", ""], ["y"])))
        ['x', 'w']
    """
    yield from filter(None, node.input)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            own = {each.name for each in (*graph.input, *graph.initializer)}
            for inner in graph.node:
                yield from (name for name in tensors_read(inner) if name not in own)
                own.update(inner.output)
            yield from (each.name for each in graph.output if each.name not in own)
