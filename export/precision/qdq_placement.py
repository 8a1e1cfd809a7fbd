"""Decides where a graph gets Q/DQ pairs, so TensorRT runs consecutive convolutions in INT8 without FP32 between them.

A convolution or linear layer reads INT8. TensorRT fuses some operators into the layer's kernel (activation, residual
addition) and moves a Q across others (max-pooling, concatenation, reshaping). The layer's output becomes INT8 if every
reader after those operators reads it through a pair. The rules follow NVIDIA's "Working with quantized types", Q/DQ
placement.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from export.audit import Constants, node_name, tensors_read
from sparsegpt_core.errors import ModelError

__all__ = ["Int8Plan", "output_axis", "plan_int8"]

_POOLS = ("AveragePool", "GlobalAveragePool", "ReduceMean", "MaxPool")
_FUSED = {"Add", "Clip", "Concat", "HardSigmoid", "HardSwish", "LeakyRelu", "MaxPool", "Mul", "Relu", "Sigmoid"}

Read = tuple[str, int]
"""An input of a node: the name of the node's first output (unlike node names, it is unique) and the input's index."""

_NO_NODE: Read = ("", -1)  # the reader of the graph's outputs, and of tensors that nodes in bodies read


@dataclass(frozen=True)
class Int8Plan:
    """The parts of a graph that become INT8."""

    layers: tuple[str, ...]
    """Names of the nodes with an INT8 weight, in the graph's order."""
    reads: frozenset[Read]
    """The inputs that read their tensor through a Q/DQ pair. All readers of one tensor share its pair."""
    ranges: Mapping[str, str]
    """For each tensor with a pair, the tensor whose range it takes: itself, or the input of a max-pooling before it.
    Max-pooling does not change integers."""

    @property
    def tensors(self) -> tuple[str, ...]:
        """The tensors whose ranges are needed, in the graph's order."""
        return tuple(dict.fromkeys(self.ranges.values()))


def plan_int8(model: onnx.ModelProto, exclude: Collection[str] = (), ends: bool = True) -> Int8Plan:
    """Decide which layers become INT8 and which tensors get a Q/DQ pair.

    Pairs are placed

    - at the data input of every such layer;
    - at one operand of a residual Add. The other operand is the convolution that the Add is fused to, the deeper one
      if both are convolutions;
    - at the input of a pooling, if the convolution before it could not output INT8 otherwise.

    Nodes in the bodies of If and Loop do not change.

    Args:
        model: An FP32 graph, its nodes in topological order, batch norm folded.
        exclude: Nodes that stay in FP32. A module's name excludes all of its calls.
        ends: Whether the first and the last layer become INT8. If no other layer is left, they do in any case.

    Raises:
        ModelError: The graph is quantised already, or no layer is left to quantise.

    Example:
        >>> from torch import nn
        >>> from export.writing import export_model
        >>> model = export_model(nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU()).eval(), (4, 8, 8))
        >>> plan = plan_int8(model)
        >>> plan.layers, plan.tensors
        (('0',), ('input',))
    """
    graph = model.graph
    if any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in graph.node):
        raise ModelError("the graph is quantised already", "Give the FP32 export of the model.")
    constants = Constants(graph)
    layers = [node for node in graph.node if _is_layer(node, constants) and not _is_excluded(node.name, exclude)]
    if not layers:
        raise ModelError(
            "no Conv, Gemm or MatMul with a constant FP32 weight is left to quantise", "Give fewer names in `exclude`."
        )
    if not ends:
        outer = [node_name(layers[0]), node_name(layers[-1])]
        layers = [node for node in layers if not _is_excluded(node_name(node), outer)] or layers
    convolutions = {node.output[0] for node in layers if node.op_type == "Conv"}
    readers = _readers(graph)
    reads = {(node.output[0], 0) for node in layers}
    reads.update(_residuals(graph, convolutions, readers, constants))
    reads.update(_poolings(graph, convolutions, readers, reads))
    return Int8Plan(tuple(node_name(node) for node in layers), frozenset(reads), _ranges(graph, reads))


def output_axis(node: onnx.NodeProto) -> int:
    """Return the axis of the output channels in a Conv's, Gemm's or MatMul's weight."""
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return 0 if node.op_type == "Conv" or transposed else 1


def _is_layer(node: onnx.NodeProto, constants: Constants) -> bool:
    if node.op_type not in ("Conv", "Gemm", "MatMul") or constants.value(node.input[0]) is not None:
        return False
    weight = constants.value(node.input[1])
    return weight is not None and weight.dtype == np.float32 and (node.op_type == "Conv" or weight.ndim == 2)


def _is_excluded(name: str, exclude: Collection[str]) -> bool:
    return name in exclude or name.partition("#")[0] in exclude  # a module's second call is "name#2"


def _readers(graph: onnx.GraphProto) -> dict[str, set[Read]]:
    """Return the readers of each tensor."""
    readers: dict[str, set[Read]] = defaultdict(set)
    for node in graph.node:
        for index, tensor in enumerate(node.input):
            readers[tensor].add((node.output[0], index))
        for tensor in {*tensors_read(node)} - {*node.input}:
            readers[tensor].add(_NO_NODE)
    for value in graph.output:
        readers[value.name].add(_NO_NODE)
    return readers


def _residuals(
    graph: onnx.GraphProto, convolutions: set[str], readers: Mapping[str, set[Read]], constants: Constants
) -> Iterator[Read]:
    """Yield the operands of residual additions, except the convolution that each addition is fused to."""
    depth: dict[str, int] = {}
    for node in graph.node:
        below = max((depth.get(tensor, 0) for tensor in node.input), default=0)
        depth.update(dict.fromkeys(node.output, below + (node.op_type == "Conv")))
        if node.op_type != "Add" or any(constants.value(tensor) is not None for tensor in node.input):
            continue
        fusible = [i for i, each in enumerate(node.input) if each in convolutions and len(readers[each]) == 1]
        if fusible:
            kept = max(fusible, key=lambda index: depth[node.input[index]])
            yield node.output[0], 1 - kept


def _poolings(
    graph: onnx.GraphProto, convolutions: set[str], readers: Mapping[str, set[Read]], reads: set[Read]
) -> Iterator[Read]:
    """Yield the inputs of poolings that can read INT8, where no other reader needs the tensor in FP32."""
    pools = {(node.output[0], 0): node for node in graph.node if node.op_type in _POOLS}
    from_convolution = set(convolutions)
    for node in graph.node:
        if node.op_type in _FUSED and not from_convolution.isdisjoint(node.input):
            from_convolution.update(node.output)
    for read, node in pools.items():
        tensor = node.input[0]
        others = readers[tensor] - pools.keys()
        averaged = any(pools[each].op_type != "MaxPool" for each in readers[tensor] & pools.keys())
        # TensorRT itself moves a Q from after a lone max-pooling to before it.
        if others <= reads and (others or (averaged and tensor in from_convolution)):
            yield read


def _ranges(graph: onnx.GraphProto, reads: Collection[Read]) -> dict[str, str]:
    """Return, for each tensor with a pair, the tensor whose range it takes."""
    ranges: dict[str, str] = {}
    pooled: dict[str, str] = {}
    for node in graph.node:
        for index, tensor in enumerate(node.input):
            if (node.output[0], index) in reads:
                ranges[tensor] = pooled.get(tensor, tensor)
        if node.op_type == "MaxPool" and (node.output[0], 0) in reads:
            pooled[node.output[0]] = ranges[node.input[0]]
    return ranges
