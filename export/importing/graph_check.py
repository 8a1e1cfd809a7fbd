"""Refuses broken graphs that ONNX Runtime would refuse if it saw them whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx
from onnx.checker import C, ValidationError

from export.importing.weighted_nodes import is_weighted
from sparsegpt_core.errors import ModelError, first_line

__all__ = ["check_graph"]

_HINT = "Export the model again."


def check_graph(model: onnx.ModelProto) -> None:
    """Check what the pieces of a graph no longer show: names, types of tensors, and the nodes with weights.

    Args:
        model: The model, without functions.

    Raises:
        ModelError: A name is not text, a tensor's type does not exist, or a node is not as its operator demands.

    Example:
        >>> import onnx.parser
        >>> model = onnx.parser.parse_model('''
        ...     <ir_version: 8, opset_import: ["": 17]> g (float[N, 2] x) => (float[N, 2] y) { y = MatMul(x, x) }
        ... ''')
        >>> check_graph(model)
        >>> del model.graph.node[0].input[1]
        >>> check_graph(model)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        sparsegpt_core.errors.ModelError: the node y is broken: Node with schema(::MatMul:13) has input size 1 ...
    """
    graph = model.graph
    domains = [each.domain for each in model.opset_import]
    broken = next((name for name in (*domains, *_names(graph)) if not isinstance(name, str)), None)
    if broken is not None:
        raise ModelError(f"the name {broken!r} in the graph is not UTF-8", _HINT)
    for tensor in graph.initializer:
        if tensor.data_type not in onnx.TensorProto.DataType.values()[1:]:
            raise ModelError(f"the tensor {tensor.name} has type {tensor.data_type}, which does not exist", _HINT)
    context = C.CheckerContext()
    context.ir_version = model.ir_version
    context.opset_imports = {each.domain: each.version for each in model.opset_import}
    for node in graph.node:
        if is_weighted(node):
            try:
                onnx.checker.check_node(node, context)
            except ValidationError as error:
                name = node.name or next(iter(node.output), "")
                raise ModelError(f"the node {name} is broken: {first_line(error)}", _HINT) from error


def _names(graph: onnx.GraphProto) -> Iterator[str | bytes]:
    """Yield all names in a graph. Those that are not UTF-8 are bytes."""
    yield graph.name
    values: Iterable[onnx.ValueInfoProto | onnx.TensorProto] = (*graph.input, *graph.output, *graph.initializer)
    yield from (each.name for each in values)
    for node in graph.node:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        for attribute in node.attribute:
            yield attribute.name
            for inner in (attribute.g, *attribute.graphs):
                yield from _names(inner)
