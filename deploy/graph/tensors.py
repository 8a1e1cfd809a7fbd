"""Infers the shape and the type of each tensor of an ONNX graph."""

from __future__ import annotations

__all__ = ["InferredTensor", "Shape", "infer_tensors"]

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Dict, Optional, Sequence, Tuple

from deploy.machine import require
from sparsegpt_core.errors import MissingDependencyError, ModelError

_MAX_SHAPE_VALUES = 1024  # constants with at most this many values may be shapes, which shape inference reads

Shape = Tuple[int, ...]


@dataclass(frozen=True)
class InferredTensor:
    """A tensor of a graph."""

    shape: Optional[Shape]
    """Its dimensions; None where they are unknown."""
    type: int
    """ONNX's number of its element type; 0 where it is unknown."""

    @property
    def bytes(self) -> int:
        """Its size; 0 where the shape or the type is unknown."""
        if self.shape is None or not self.type:
            return 0
        return math.prod(self.shape) * int(require("onnx").helper.tensor_dtype_to_np_dtype(self.type).itemsize)


def infer_tensors(model: Any, shapes: Mapping[str, Sequence[int]]) -> Dict[str, InferredTensor]:
    """Return inputs, weights, activations and outputs by their names.

    Where onnx finds no shape, as after pads that the graph computes, ONNX Runtime infers it, if it is installed and can
    load the graph. The bodies of If and Loop are left out.

    Args:
        model: An ``onnx.ModelProto``.
        shapes: The concrete shape of each input.

    Raises:
        ModelError: Shape inference fails.

    Example:
        >>> import onnx
        >>> model = onnx.parser.parse_model('''
        ...     <ir_version: 8, opset_import: ["": 17]>
        ...     g (float16[N, 2] x) => (float16[N, 2] y) { y = Relu(x) }''')
        >>> infer_tensors(model, {"x": (4, 2)})["y"]
        InferredTensor(shape=(4, 2), type=10)
    """
    onnx = require("onnx")
    infer, invalid = onnx.shape_inference, onnx.checker.ValidationError
    try:
        light = _light(model, shapes)
        inferred = infer.infer_shapes(light, data_prop=True).graph
    except (infer.InferenceError, invalid, RuntimeError, TypeError, ValueError) as error:
        raise ModelError(f"the graph's shapes cannot be inferred: {error}", "Export the model again.") from error
    found = {each.name: _tensor(each) for each in (*inferred.input, *inferred.value_info, *inferred.output)}
    names = {name for node in model.graph.node for name in node.output if name}
    unknown = sorted(name for name in names if name not in found or found[name].shape is None)
    return {**found, **_infer_by_onnxruntime(light, unknown)} if unknown else found


def _light(model: Any, shapes: Mapping[str, Sequence[int]]) -> Any:
    """Return the model without its large weights, since inference needs only their shapes."""
    graph, helper = model.graph, require("onnx").helper
    kept = [tensor for tensor in graph.initializer if math.prod(tensor.dims) <= _MAX_SHAPE_VALUES]
    weights = {tensor.name: (tensor.data_type, tuple(tensor.dims)) for tensor in graph.initializer}
    inputs = {each.name: (each.type.tensor_type.elem_type, shapes.get(each.name)) for each in graph.input}
    values = [helper.make_tensor_value_info(name, *typed) for name, typed in {**inputs, **weights}.items()]
    outputs = [helper.make_tensor_value_info(each.name, each.type.tensor_type.elem_type, None) for each in graph.output]
    return helper.make_model(
        helper.make_graph(graph.node, "shapes", values, outputs, kept),
        ir_version=model.ir_version,
        opset_imports=model.opset_import,
        functions=model.functions,
    )


def _infer_by_onnxruntime(light: Any, names: Sequence[str]) -> Dict[str, InferredTensor]:
    """Return the tensors that have a shape once ONNX Runtime has computed the constants of the graph.

    The tensors become outputs, so that no optimizer removes them. No inference runs.
    """
    onnx = require("onnx")
    graph, constants = light.graph, {tensor.name for tensor in light.graph.initializer}
    inputs = [each for each in graph.input if each.name not in constants]  # the default of an input is no constant
    outputs = [onnx.helper.make_empty_tensor_value_info(name) for name in names]
    asked = onnx.ModelProto()
    asked.CopyFrom(light)
    asked.graph.ClearField("input")
    asked.graph.ClearField("output")
    asked.graph.input.extend(inputs)
    asked.graph.output.extend(outputs)
    try:
        require("onnxruntime")
        from export.onnxruntime_session import open_session, uses_fp16

        session = open_session(asked.SerializeToString(), "the graph", half=uses_fp16(asked), threads=1)
    except (MissingDependencyError, ModelError):  # its shapes stay unknown
        return {}
    types = {f"tensor({name.lower()})": number for name, number in onnx.TensorProto.DataType.items()}
    return {
        each.name: InferredTensor(tuple(each.shape), types.get(each.type, 0))
        for each in session.get_outputs()
        if all(isinstance(size, int) for size in each.shape)
    }


def _tensor(value: Any) -> InferredTensor:
    tensor = value.type.tensor_type
    dims = tuple(int(dim.dim_value) for dim in tensor.shape.dim if dim.HasField("dim_value"))
    is_known = tensor.HasField("shape") and len(dims) == len(tensor.shape.dim)
    return InferredTensor(dims if is_known else None, tensor.elem_type)
