"""Converts a graph from opset 18 to 17, the last one that TensorRT 8.6 reads."""

from __future__ import annotations

import onnx.defs
from onnxscript import ir

from sparsegpt_core.errors import ModelError

__all__ = ["to_opset_17"]

_HINT = "Use `opset=18` or later, for TensorRT 10 or later."


def to_opset_17(model: ir.Model) -> None:
    """Convert a graph from opset 18 to 17 in place.

    Opset 18 turned some attributes into inputs, and added attributes with defaults and a few operators. The operators'
    schemas show which.

    Args:
        model: The graph, in opset 18.

    Raises:
        ModelError: Opset 17 cannot express an operator; names the first one.
    """
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        if not node.domain:
            _convert(node)
    model.graph.opset_imports[""] = 17
    ir.passes.common.RemoveUnusedNodesPass()(model)  # the constants that became attributes


def _convert(node: ir.Node) -> None:
    new = onnx.defs.get_schema(node.op_type, 18)
    if new.since_version < 18:
        return
    try:
        old = onnx.defs.get_schema(node.op_type, 17)
    except onnx.defs.SchemaError:
        raise ModelError(f"opset 17 has no operator {node.op_type}", _HINT) from None
    if "axes" in old.attributes:
        _axes_to_attribute(node)
    for name in [each for each in node.attributes if each not in old.attributes]:
        if not _is_redundant(node, name, new):
            raise ModelError(f"opset 17 has no {name} of {node.op_type}", _HINT)
        del node.attributes[name]
    if any(node.inputs[len(old.inputs) :]):
        raise ModelError(f"opset 17 has no input {new.inputs[len(old.inputs)].name} of {node.op_type}", _HINT)


def _axes_to_attribute(node: ir.Node) -> None:
    axes = node.inputs[1] if len(node.inputs) > 1 else None
    if axes is not None and axes.const_value is not None:
        node.attributes.add(ir.AttrInt64s("axes", axes.const_value.numpy().tolist()))
        node.resize_inputs(1)


def _is_redundant(node: ir.Node, name: str, schema: onnx.defs.OpSchema) -> bool:
    """Return whether the operator does the same without this attribute."""
    if name == "num_outputs":  # Split makes equal parts by default
        axis = node.attributes.get_int("axis", 0)
        sizes = {output.shape and output.shape[axis] for output in node.outputs}
        return len(sizes) == 1 and isinstance(sizes.pop(), int)
    default = schema.attributes[name].default_value
    return bool(default.type) and node.attributes[name] == ir.serde.deserialize_attribute(default)
