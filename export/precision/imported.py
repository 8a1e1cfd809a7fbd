"""Makes FP16 and INT8 conversion possible for ONNX graphs of other tools."""

from __future__ import annotations

import onnx
from onnx import helper, version_converter

from export.audit import inlined, is_custom
from export.execution import more_outputs, open_model
from export.importing import element_type, sorted_nodes
from sparsegpt_core.errors import ModelError, first_line

__all__ = ["convertible"]


def convertible(model: onnx.ModelProto, opset: int = 0) -> onnx.ModelProto:
    """Inline functions, bring nodes into running order, name them, and turn Constant nodes into initializers.

    Around custom operators the types of tensors are added.

    Args:
        model: The graph. It is changed, since a copy may not fit into memory.
        opset: The oldest version of ONNX's operators that the conversion takes. An older graph is converted by onnx's
            version converter.

    Returns:
        The new graph.

    Raises:
        ModelError: The version converter cannot convert an operator, or ONNX Runtime lacks a custom one.

    Example:
        >>> import onnx.parser
        >>> model = onnx.parser.parse_model('''
        ...     <ir_version: 7, opset_import: ["": 11]> g (float[N] x) => (float[N] y) { y = Relu(a)  a = Relu(x) }
        ... ''')
        >>> new = convertible(model, opset=13)
        >>> [node.name for node in new.graph.node], new.opset_import[0].version
        (['a', 'y'], 13)
    """
    flat, used = inlined(model), set[str]()
    nodes = onnx.GraphProto(node=[flat.graph.node[index] for index in sorted_nodes(flat.graph)]).node
    del flat.graph.node[:]
    for node in nodes:
        if (value := _constant_tensor(node)) is not None:
            flat.graph.initializer.add().CopyFrom(value)
            flat.graph.initializer[-1].name = node.output[0]
            continue
        flat.graph.node.append(node)
        new = flat.graph.node[-1]
        while not new.name or new.name in used:
            new.name = f"{new.name}_" if new.name else next(filter(None, node.output), node.op_type)
        used.add(new.name)
    own = [each.version for each in model.opset_import if each.domain in ("", "ai.onnx")]
    if own and own[0] < opset:
        try:
            converted: onnx.ModelProto = version_converter.convert_version(flat, opset)
        except (RuntimeError, ValueError, onnx.checker.ValidationError) as error:
            raise ModelError(
                f"the graph has opset {own[0]} and cannot be converted to {opset}: {first_line(error)}",
                f"Export it with opset {opset} or later.",
            ) from error
        flat = converted
    if any(is_custom(node) for node in flat.graph.node):
        _add_types(flat)
    return flat


def _add_types(model: onnx.ModelProto) -> None:
    """Add the types of all tensors. Shape inference knows none after a custom operator; ONNX Runtime knows them."""
    known = {each.name for each in (*model.graph.value_info, *model.graph.output)}
    names = {name for node in model.graph.node for name in node.output} - known
    with more_outputs(model, names):
        outputs = open_model(model, "the graph").get_outputs()
    for each in outputs:
        if each.name in names:
            kind = element_type(each.type, each.name)
            model.graph.value_info.append(helper.make_tensor_value_info(each.name, kind, None))


def _constant_tensor(node: onnx.NodeProto) -> onnx.TensorProto | None:
    """Return the tensor of a Constant node."""
    attributes = node.attribute if node.op_type == "Constant" else ()
    return next((each.t for each in attributes if each.name == "value"), None)
