"""Where a graph gets Q/DQ pairs, so that TensorRT runs consecutive convolutions in INT8 from end to end.

A convolution or linear layer reads INT8. What it puts out becomes INT8 where every reader, behind what TensorRT
fuses into its kernel (activation, residual addition) or moves a Q across (max-pooling, concatenation, reshaping),
reads through a pair. Rules after NVIDIA's "Working with quantized types", Q/DQ placement.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from export.audit import Constants
from sparsegpt_core.errors import ModelError

__all__ = ["Int8Plan", "output_axis", "plan_int8", "tensors_read"]

_POOLS = ("AveragePool", "GlobalAveragePool", "ReduceMean", "MaxPool")
_FUSED = {"Add", "Clip", "Concat", "HardSigmoid", "HardSwish", "LeakyRelu", "MaxPool", "Mul", "Relu", "Sigmoid"}

Read = tuple[str, int]
"""An input of a node: the name of its first output, which is unique where names need not be, and the index."""

_NO_NODE: Read = ("", -1)  # reads the graph's outputs, and what nodes in bodies read


@dataclass(frozen=True)
class Int8Plan:
    """What of a graph becomes INT8.

    ``layers`` are the names of the nodes with an INT8 weight, in the graph's order. ``reads`` are the inputs that
    read their tensor through a Q/DQ pair; all that read the same tensor share one. ``ranges`` maps each such tensor
    to the one whose range it takes: itself, or what a max-pooling, which keeps integers as they are, reads.
    """

    layers: tuple[str, ...]
    reads: frozenset[Read]
    ranges: Mapping[str, str]

    @property
    def tensors(self) -> tuple[str, ...]:
        """The tensors whose ranges have to be known, in the graph's order."""
        return tuple(dict.fromkeys(self.ranges.values()))


def plan_int8(model: onnx.ModelProto, exclude: Collection[str] = (), ends: bool = True) -> Int8Plan:
    """Decide which layers become INT8 and which tensors get a Q/DQ pair.

    Pairs stand at the data input of every such layer; at one operand of a residual Add, whose other operand is a
    convolution that the Add is fused to (the deeper one where both are); and at the input of a pooling where
    the convolution before it could not put out INT8 otherwise. Nodes in the bodies of If and Loop stay as they are.

    Args:
        model: An FP32 graph, its nodes in topological order, batch norm folded.
        exclude: Nodes that stay in FP32; a module's name stands for all of its calls.
        ends: Whether the first and the last layer become INT8. Where no other layer is left, they do in any case.

    Raises:
        ModelError: The graph is quantised already, or nothing is left to quantise.
    """
    graph = model.graph
    if any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in graph.node):
        raise ModelError("the graph is quantised already", "Give the FP32 export of the model.")
    constants = Constants(graph)
    layers = [node for node in graph.node if _is_layer(node, constants) and not _is_excluded(node.name, exclude)]
    if not layers:
        raise ModelError(
            "no Conv, Gemm or MatMul with a constant FP32 weight is left to quantise", "Exclude fewer layers."
        )
    if not ends:
        outer = [_name(layers[0]), _name(layers[-1])]
        layers = [node for node in layers if not _is_excluded(_name(node), outer)] or layers
    convolutions = {node.output[0] for node in layers if node.op_type == "Conv"}
    readers = _readers(graph)
    reads = {(node.output[0], 0) for node in layers}
    reads.update(_residuals(graph, convolutions, readers, constants))
    reads.update(_poolings(graph, convolutions, readers, reads))
    return Int8Plan(tuple(_name(node) for node in layers), frozenset(reads), _ranges(graph, reads))


def output_axis(node: onnx.NodeProto) -> int:
    """Return the axis of the output channels in a Conv's, Gemm's or MatMul's weight."""
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return 0 if node.op_type == "Conv" or transposed else 1


def tensors_read(nodes: Iterable[onnx.NodeProto]) -> Iterator[str]:
    """Yield the inputs of nodes, those in the bodies of If and Loop included."""
    for node in nodes:
        yield from node.input
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from tensors_read(attribute.g.node)
                yield from (value.name for value in attribute.g.output)


def _is_layer(node: onnx.NodeProto, constants: Constants) -> bool:
    if node.op_type not in ("Conv", "Gemm", "MatMul") or constants.value(node.input[0]) is not None:
        return False
    weight = constants.value(node.input[1])
    return weight is not None and weight.dtype == np.float32 and (node.op_type == "Conv" or weight.ndim == 2)


def _name(node: onnx.NodeProto) -> str:
    return str(node.name or node.output[0])


def _is_excluded(name: str, exclude: Collection[str]) -> bool:
    return name in exclude or name.partition("#")[0] in exclude  # a module's second call is "name#2"


def _readers(graph: onnx.GraphProto) -> dict[str, set[Read]]:
    """Who reads each tensor."""
    readers: dict[str, set[Read]] = defaultdict(set)
    for node in graph.node:
        for index, tensor in enumerate(node.input):
            readers[tensor].add((node.output[0], index))
        for tensor in {*tensors_read([node])} - {*node.input}:
            readers[tensor].add(_NO_NODE)
    for value in graph.output:
        readers[value.name].add(_NO_NODE)
    return readers


def _residuals(
    graph: onnx.GraphProto, convolutions: set[str], readers: Mapping[str, set[Read]], constants: Constants
) -> Iterator[Read]:
    """The operands of residual additions that are not the convolution which the addition is fused to."""
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
    """The poolings that can take INT8 where nobody else needs the tensor in floating point."""
    pools = {(node.output[0], 0): node for node in graph.node if node.op_type in _POOLS}
    from_convolution = set(convolutions)
    for node in graph.node:
        if node.op_type in _FUSED and not from_convolution.isdisjoint(node.input):
            from_convolution.update(node.output)
    for read, node in pools.items():
        tensor = node.input[0]
        others = readers[tensor] - pools.keys()
        averaged = any(pools[each].op_type != "MaxPool" for each in readers[tensor] & pools.keys())
        # A Q behind a lone max-pooling moves before it without help.
        if others <= reads and (others or (averaged and tensor in from_convolution)):
            yield read


def _ranges(graph: onnx.GraphProto, reads: Collection[Read]) -> dict[str, str]:
    ranges: dict[str, str] = {}
    pooled: dict[str, str] = {}
    for node in graph.node:
        for index, tensor in enumerate(node.input):
            if (node.output[0], index) in reads:
                ranges[tensor] = pooled.get(tensor, tensor)
        if node.op_type == "MaxPool" and (node.output[0], 0) in reads:
            pooled[node.output[0]] = ranges[node.input[0]]
    return ranges
