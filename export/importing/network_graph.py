"""Writes an ONNX graph as a graph of functions that PyTorch can walk."""

from __future__ import annotations

import operator
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import helper
from torch import Tensor
from torch.fx import Graph, Node

from export.audit import Constants, graph_inputs, integer_attribute, is_custom
from export.importing.runtime_call import RuntimeCall
from export.importing.segments import Piece
from export.importing.shift_constants import ShiftConstant
from export.importing.weighted_nodes import WeightedNode

__all__ = ["OUTPUT", "SHIFT", "find_batch_norms", "join_pieces"]

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


def find_batch_norms(graph: onnx.GraphProto, constants: Constants) -> list[int]:
    """Return the indices of the batch norms that PyTorch can compute.

    It computes those of a PyTorch network too. Computed by the same code, equal networks have equal activations, and so
    equal masks; ONNX Runtime's batch norm rounds in another way.

    Args:
        graph: The graph.
        constants: Its constants.

    Example:
        >>> import onnx.parser
        >>> graph = onnx.parser.parse_graph('''
        ...     g (float[N, 1] x) => (float[N, 1] y) <float[1] w = {2}> { y = BatchNormalization(x, w, w, w, w) }
        ... ''')
        >>> find_batch_norms(graph, Constants(graph))
        [0]
    """

    def is_vector(name: str) -> bool:
        value = constants.value(name)
        return value is not None and value.dtype == np.float32 and value.ndim == 1

    return [
        index
        for index, node in enumerate(graph.node)
        if node.op_type == "BatchNormalization"
        and not is_custom(node)
        and [bool(name) for name in node.output] == [True]
        and not integer_attribute(node, "training_mode", 0)
        and integer_attribute(node, "spatial", 1)
        and len(node.input) == 5
        and all(is_vector(name) for name in node.input[1:])
    ]


def join_pieces(
    model: onnx.ModelProto,
    pieces: Sequence[Piece],
    layers: Mapping[int, tuple[str, WeightedNode]],
    shifts: Mapping[int, ShiftConstant],
    batch_norms: Collection[int],
) -> Graph:
    """Turn the pieces of an ONNX graph into functions of tensors: those of PyTorch, and calls of ONNX Runtime.

    Args:
        model: The model, without functions.
        pieces: Its pieces in running order.
        layers: By index of a node that is a layer the layer's name, and the node.
        shifts: By index of such a node the constant that takes up shifts of its outputs.
        batch_norms: The indices of batch norms, as :func:`find_batch_norms` returns them.

    Raises:
        ModelError: ONNX Runtime cannot load a piece.
    """
    target, known = Graph(), Constants(model.graph)
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
        call = (
            _BatchNorm(model.graph.node[index], piece, types, known)
            if index in batch_norms and model.graph.node[index].input[0] in values  # not of a constant
            else RuntimeCall(model, piece, types, forms)
        )
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


class _BatchNorm:
    """A batch norm as a function of the tensors that its piece reads: images, and the mean where it is no constant."""

    __name__ = "batch_norm"  # torch.fx names its nodes by it

    def __init__(self, node: onnx.NodeProto, piece: Piece, types: Mapping[str, int], constants: Constants) -> None:
        self._names, self._reads = list(node.input), list(piece.reads)
        self._constants = {
            name: torch.from_numpy(np.array(constants.value(name))) for name in node.input if name not in piece.reads
        }
        self._epsilon = next((each.f for each in node.attribute if each.name == "epsilon"), 1e-5)
        self.types = {node.output[0]: types[node.input[0]]}

    def __call__(self, *tensors: Tensor) -> Tensor:
        values = {**self._constants, **dict(zip(self._reads, tensors, strict=True))}
        images = values[self._names[0]]
        scale, bias, mean, variance = (values[name].to(images.device) for name in self._names[1:])
        normed = F.batch_norm(images.float(), mean, variance, scale, bias, eps=self._epsilon)
        return normed.to(images.dtype)


def _add_input(graph: Graph, value: onnx.ValueInfoProto) -> Node:
    """Add an input in the type of the file, which takes floats too: images are floats everywhere else."""
    kind = value.type.tensor_type.elem_type
    return graph.call_function(_as_type, (graph.placeholder(value.name), _INPUT_TYPES.get(kind)))


def _as_type(x: Tensor, kind: torch.dtype | None) -> Tensor:
    if kind is torch.uint8 and x.is_floating_point():  # images on the scale 0..255
        return x.round().clamp(0, 255).to(kind)
    return x.to(kind) if kind is not None and x.is_floating_point() else x
