"""Refuses broken graphs that ONNX Runtime would refuse if it saw them whole."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

import onnx
from onnx.checker import C, ValidationError

from export.audit import node_name
from export.importing.weighted_nodes import is_weighted
from sparsegpt_core.errors import ModelError, first_line

__all__ = ["check_graph"]

_MAX_NUMBERS = 1 << 50  # of a tensor
_HINT = "Export the model again."


def check_graph(model: onnx.ModelProto) -> None:
    """Check what the pieces of a graph no longer show: names, types of tensors, and the nodes with weights.

    Args:
        model: The model, without functions.

    Raises:
        ModelError: A text is not UTF-8, two tensors have one name, a version or a type does not exist, a shape is
            impossible, or a node is not as its operator demands.

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
    texts = [each.domain for each in model.opset_import]
    texts += [value for each in (model, graph) for _, value in each.ListFields() if isinstance(value, (str, bytes))]
    broken = next((text for text in (*texts, *_names(graph)) if not isinstance(text, str)), None)
    if broken is not None:
        raise ModelError(f"the text {broken!r} in the file is not UTF-8", _HINT)
    for tensor in graph.initializer:
        if tensor.data_type not in onnx.TensorProto.DataType.values()[1:]:
            raise ModelError(f"the tensor {tensor.name} has type {tensor.data_type}, which does not exist", _HINT)
        if min(tensor.dims, default=0) < 0 or math.prod(tensor.dims) > _MAX_NUMBERS:
            raise ModelError(f"the tensor {tensor.name} has an impossible shape", _HINT)
    defined = {each.name for each in (*graph.input, *graph.initializer)}
    for name in (output for node in graph.node for output in node.output if output):
        if name in defined:
            raise ModelError(f"the tensor {name} is computed twice, or is an input too", _HINT)
        defined.add(name)
    versions = [model.ir_version, *(each.version for each in model.opset_import)]
    if not all(0 <= version < 1 << 31 for version in versions):
        raise ModelError(f"the file has the versions {', '.join(map(str, versions))}, which do not exist", _HINT)
    context = C.CheckerContext()
    context.ir_version = model.ir_version
    context.opset_imports = {each.domain: each.version for each in model.opset_import}
    for node in graph.node:
        if any(each.name == "group" and each.i < 1 for each in node.attribute):  # ONNX Runtime divides by it
            raise ModelError(f"the attributes of the node {node_name(node)} are impossible", _HINT)
        if "" in node.input and _takes_any_number(node, context.opset_imports):  # ONNX Runtime reads the missing one
            raise ModelError(f"the node {node_name(node)} is broken: one of its inputs has no name", _HINT)
        if is_weighted(node):
            try:
                onnx.checker.check_node(node, context)
            except ValidationError as error:
                raise ModelError(f"the node {node_name(node)} is broken: {first_line(error)}", _HINT) from error


def _takes_any_number(node: onnx.NodeProto, versions: Mapping[str, int]) -> bool:
    """Return whether an operator takes any number of inputs from the first on, such as Max. It can miss none."""
    if not onnx.defs.has(node.op_type, versions.get(node.domain, 1), node.domain):
        return False
    inputs = onnx.defs.get_schema(node.op_type, versions.get(node.domain, 1), node.domain).inputs
    return bool(inputs) and inputs[0].option == onnx.defs.OpSchema.FormalParameterOption.Variadic


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
