"""Writes an ONNX graph as a graph of functions that PyTorch can walk."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence

import onnx
import torch
from onnx import helper
from torch import Tensor
from torch.fx import Graph, Node

from export.audit import graph_inputs
from export.importing.runtime_call import RuntimeCall
from export.importing.segments import Piece
from export.importing.shift_constants import ShiftConstant
from export.importing.weighted_nodes import WeightedNode

__all__ = ["OUTPUT", "SHIFT", "join_pieces"]

OUTPUT = "output_"
"""What the names of the network's buffers start with that hold outputs which are constants."""
SHIFT = "shift"
"""The name of a layer's buffer where another node's constant takes up shifts of its outputs."""

_INPUT_TYPES: dict[int, torch.dtype] = {
    onnx.TensorProto.UINT8: torch.uint8,
    onnx.TensorProto.FLOAT16: torch.float16,
    onnx.TensorProto.FLOAT: torch.float32,
    onnx.TensorProto.DOUBLE: torch.float64,
}


def join_pieces(
    model: onnx.ModelProto,
    pieces: Sequence[Piece],
    layers: Mapping[int, tuple[str, WeightedNode]],
    shifts: Mapping[int, ShiftConstant],
) -> Graph:
    """Turn the pieces of an ONNX graph into functions of tensors: PyTorch's layers, and calls of ONNX Runtime.

    Args:
        model: The model, without functions.
        pieces: Its pieces in running order.
        layers: By index of a node that is a layer the layer's name, and the node.
        shifts: By index of such a node the constant that takes up shifts of its outputs.

    Raises:
        ModelError: ONNX Runtime cannot load a piece.
    """
    target = Graph()
    constants = {constant.name: (layers[index][0], constant) for index, constant in shifts.items()}
    values: dict[str, Node] = {}
    forms = {name: (constant.shape, constant.dtype) for name, (_, constant) in constants.items()}
    types: dict[str, int] = {name: helper.np_dtype_to_tensor_dtype(dtype) for name, (_, dtype) in forms.items()}
    for each in graph_inputs(model.graph):
        types[each.name] = each.type.tensor_type.elem_type
        values[each.name] = _add_input(target, each)

    attributes: dict[str, Node] = {}

    def attribute(name: str) -> Node:
        if name not in attributes:
            attributes[name] = target.get_attr(name)
        return attributes[name]

    for piece in pieces:
        index = piece.nodes[0]
        if index in layers:
            layer, node = layers[index]
            weight = attribute(f"{layer}.weight")
            bias = attribute(f"{layer}.bias") if node.prunable.bias is not None else None
            values[node.output] = node.add_to(target, values[node.data], weight, bias)
            types[node.output] = types[node.data]
            continue
        call = RuntimeCall(model, piece, types, forms)
        shifted = {name: attribute(f"{layer}.{SHIFT}") for name, (layer, _) in constants.items() if name in piece.reads}
        reads = [shifted.get(name) or values[name] for name in piece.reads]
        result = target.call_function(call, tuple(reads))
        types |= call.types
        for place, name in enumerate(piece.gives):
            values[name] = target.call_function(operator.getitem, (result, place)) if len(piece.gives) > 1 else result
    for place, each in enumerate(model.graph.output):
        if each.name not in values:
            values[each.name] = attribute(f"{OUTPUT}{place}")
    outputs = {each.name: values[each.name] for each in model.graph.output}
    target.output(next(iter(outputs.values())) if len(outputs) == 1 else outputs)
    return target


def _add_input(graph: Graph, value: onnx.ValueInfoProto) -> Node:
    """Add an input in the type of the file, which takes floats too: images are floats everywhere else."""
    kind = value.type.tensor_type.elem_type
    return graph.call_function(_as_type, (graph.placeholder(value.name), _INPUT_TYPES.get(kind)))


def _as_type(x: Tensor, kind: torch.dtype | None) -> Tensor:
    if kind is torch.uint8 and x.is_floating_point():  # images on the scale 0..255
        return x.round().clamp(0, 255).to(kind)
    return x.to(kind) if kind is not None and x.is_floating_point() else x
