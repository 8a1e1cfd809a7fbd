"""Builds INT8 graphs: explicit Q/DQ pairs with zero points of 0, which TensorRT reads from 8.6 on."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper
from torch import Tensor

from export.audit import Constants, node_name, tensors_read
from export.precision.int8_weights import Int8NodeWeight, int8_weight_for_node, round_to_int8
from export.precision.qdq_placement import Int8Plan, output_axis
from sparsegpt_core.errors import InputError, ModelError
from sparsegpt_core.network import Int8Weight, weight_key

__all__ = ["MIN_INT8_OPSET", "set_scales", "to_int8"]

MIN_INT8_OPSET = 13
"""The oldest version of ONNX's operators with a scale for each channel."""


def to_int8(
    model: onnx.ModelProto,
    plan: Int8Plan,
    scales: Mapping[str, float],
    int8_weights: Mapping[str, Int8Weight] | None = None,
    state: Mapping[str, Tensor] | None = None,
) -> onnx.ModelProto:
    """Return an INT8 copy of an FP32 graph. Node names, inputs, outputs, opset and metadata do not change.

    A planned tensor passes QuantizeLinear and DequantizeLinear before the inputs that the plan names. The weight of
    a planned layer is stored in int8, followed by a DequantizeLinear with a scale for each output channel. Zeros stay
    zero. Biases stay in FP32.

    Args:
        model: The graph that ``plan`` was made from.
        plan: See :func:`~export.precision.plan_int8`.
        scales: The size of an integer step for each of ``plan.tensors``.
        int8_weights: Weights that are rounded already, by module. Other weights are rounded to nearest.
        state: The network's state dict at the time of the export. Only ``int8_weights`` need it.

    Raises:
        InputError: A scale is missing or not positive, or a module of ``int8_weights`` has no weight in ``state``.
        ModelError: The opset is below 13.
        NumericsError: A weight contains NaN or infinity.
        CheckFailedError: An INT8 weight does not fit its node; names the layer.

    Example:
        >>> from torch import nn
        >>> from export.precision import plan_int8
        >>> from export.writing import export_model
        >>> model = export_model(nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU()).eval(), (4, 8, 8))
        >>> plan = plan_int8(model)
        >>> [node.op_type for node in to_int8(model, plan, {"input": 0.05}).graph.node]
        ['QuantizeLinear', 'DequantizeLinear', 'DequantizeLinear', 'Conv', 'Relu']
    """
    opset = next(each.version for each in model.opset_import if each.domain in ("", "ai.onnx"))
    if opset < MIN_INT8_OPSET:
        raise ModelError(f"opset {opset} has no scales per channel", f"Export with `opset={MIN_INT8_OPSET}` or later.")
    rewriter = _Rewriter(model.graph, plan, scales, int8_weights or {}, state or {})
    for node in model.graph.node:
        rewriter.add(node)
    return _with_new_nodes(model, rewriter.nodes, rewriter.constants)


def set_scales(int8: onnx.ModelProto, plan: Int8Plan, scales: Mapping[str, float]) -> None:
    """Change the activations' scales in what :func:`to_int8` returned.

    Args:
        int8: The INT8 graph.
        plan: The plan that it was made with.
        scales: The size of an integer step for each of ``plan.tensors``.

    Raises:
        InputError: A scale is missing or not positive.

    Example:
        >>> from torch import nn
        >>> from export.precision import plan_int8
        >>> from export.writing import export_model
        >>> model = export_model(nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU()).eval(), (4, 8, 8))
        >>> plan = plan_int8(model)
        >>> int8 = to_int8(model, plan, {"input": 0.05})
        >>> set_scales(int8, plan, {"input": 0.1})
        >>> int8 == to_int8(model, plan, {"input": 0.1})
        True
    """
    initializers = {tensor.name: tensor for tensor in int8.graph.initializer}
    for node in int8.graph.node:
        if node.op_type == "QuantizeLinear":
            value = np.asarray(_scale(scales, plan.ranges[node.input[0]]))
            initializers[node.input[1]].CopyFrom(numpy_helper.from_array(value, node.input[1]))


def _scale(scales: Mapping[str, float], tensor: str) -> np.float32:
    if tensor not in scales:
        raise InputError(f"the tensor {tensor} has no scale", "Calibrate all tensors of the plan.")
    with np.errstate(over="ignore", under="ignore"):
        scale: np.float32 = np.float32(scales[tensor])
    if not 0 < scale < np.inf:
        raise InputError(f"the scale {scales[tensor]:g} of the tensor {tensor} is not a positive FP32 number")
    return scale


class _Rewriter:
    """Collects the nodes and the new constants of the INT8 graph."""

    def __init__(
        self,
        graph: onnx.GraphProto,
        plan: Int8Plan,
        scales: Mapping[str, float],
        int8_weights: Mapping[str, Int8Weight],
        state: Mapping[str, Tensor],
    ) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._plan, self._scales = plan, scales
        self._int8_weights, self._state = int8_weights, state
        self._present = Constants(graph)
        self._layers = set(plan.layers)
        self._names = {name for node in graph.node for name in (*tensors_read(node), *node.output)}
        self._names.update(each.name for each in (*graph.input, *graph.initializer))
        self._pairs: dict[str, str] = {}
        self._weights: dict[tuple[str, int, str], tuple[str, Int8NodeWeight]] = {}

    def add(self, original: onnx.NodeProto) -> None:
        """Add a node, after the Q/DQ nodes that it is the first to read."""
        node = onnx.NodeProto()
        node.CopyFrom(original)
        for index, tensor in enumerate(original.input):
            if (original.output[0], index) in self._plan.reads:
                node.input[index] = self._pair(tensor)
        name = node_name(node)
        shift = None
        if name in self._layers:
            node.input[1], weight = self._weight(node, name)
            shift = weight.shift
        self.nodes.append(node)
        if shift is not None and shift.any():
            self._shift(node, shift)

    def _pair(self, tensor: str) -> str:
        """Return the output of the tensor's Q/DQ pair; all readers share one pair."""
        if tensor not in self._pairs:
            scale = self._constant(f"{tensor}_scale", _scale(self._scales, self._plan.ranges[tensor]))
            zero = self._constant(f"{tensor}_zero_point", np.int8(0))
            quantized = self._operation("QuantizeLinear", [tensor, scale, zero], f"{tensor}_quantized")
            self._pairs[tensor] = self._operation("DequantizeLinear", [quantized, scale, zero], f"{tensor}_dequantized")
        return self._pairs[tensor]

    def _weight(self, node: onnx.NodeProto, name: str) -> tuple[str, Int8NodeWeight]:
        """Quantise the node's weight, once for all nodes that share it and its INT8 weight."""
        axis, module = output_axis(node), name.partition("#")[0]
        key = (node.input[1], axis, module if module in self._int8_weights else "")
        if key not in self._weights:
            weight = self._int8_weight(self._present.value(node.input[1]), axis, module)
            base = self._present.source(node.input[1])
            values = self._constant(f"{base}_quantized", weight.values)
            scale = self._constant(f"{base}_scale", weight.scales)
            zero = self._constant(f"{base}_zero_point", np.zeros(len(weight.scales), dtype=np.int8))
            output = self._operation("DequantizeLinear", [values, scale, zero], f"{base}_dequantized", axis=axis)
            self._weights[key] = output, weight
        return self._weights[key]

    def _int8_weight(self, weight: npt.NDArray[Any] | None, axis: int, module: str) -> Int8NodeWeight:
        if weight is None:
            raise InputError(f"{module} has no constant weight", "Give the graph that the plan was made from.")
        if module not in self._int8_weights:
            return round_to_int8(weight, axis, module)
        exported = self._state.get(weight_key(module, self._state))
        if exported is None:
            raise InputError(f"the network's state has no weight of {module}", "Give the state that was exported.")
        return int8_weight_for_node(self._int8_weights[module], exported, weight, axis, module)

    def _shift(self, node: onnx.NodeProto, shift: npt.NDArray[Any]) -> None:
        """Add a shift (K,) to the outputs of the last node: in its bias, or by an Add after a MatMul."""
        if node.op_type == "MatMul":
            output = node.output[0]
            node.output[0] = self._unique(f"{output}_unshifted")
            inputs = [node.output[0], self._constant(f"{output}_shift", shift)]
            self.nodes.append(helper.make_node("Add", inputs, [output], name=f"{output}_Add"))
        elif len(node.input) > 2:
            bias = self._present.value(node.input[2])
            if bias is None:
                raise InputError(f"the bias of {node.name} is not constant", "Export without rounded weights.")
            node.input[2] = self._constant(f"{node.input[2]}_shifted", bias + shift)
        else:
            node.input.append(self._constant(f"{node.input[1]}_bias", shift))

    def _constant(self, name: str, value: Any) -> str:
        name = self._unique(name)
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def _operation(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        output = self._unique(output)
        self.nodes.append(helper.make_node(kind, inputs, [output], name=f"{output}_{kind}", **attributes))
        return output

    def _unique(self, name: str) -> str:
        while name in self._names:
            name += "_"
        self._names.add(name)
        return name


def _with_new_nodes(
    model: onnx.ModelProto, nodes: list[onnx.NodeProto], constants: list[onnx.TensorProto]
) -> onnx.ModelProto:
    """Return a model with other nodes and more constants, without what no node reads: FP32 weights are not copied."""
    graph, used, kept = model.graph, {value.name for value in model.graph.output}, list[onnx.NodeProto]()
    for node in reversed(nodes):
        if not used.isdisjoint(node.output):
            kept.append(node)
            used.update(tensors_read(node))
    unread = {tensor.name for tensor in graph.initializer} - used
    new = onnx.ModelProto(**_fields(model, without=("graph",)))
    new.graph.MergeFrom(onnx.GraphProto(**_fields(graph, without=("node", "initializer", "input"))))
    new.graph.node.extend(kept[::-1])
    new.graph.input.extend(value for value in graph.input if value.name not in unread)
    new.graph.initializer.extend(tensor for tensor in (*graph.initializer, *constants) if tensor.name in used)
    return new


def _fields(message: Any, without: Collection[str]) -> dict[str, Any]:
    return {field.name: value for field, value in message.ListFields() if field.name not in without}
