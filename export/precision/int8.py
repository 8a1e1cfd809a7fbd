"""INT8 graphs: explicit Q/DQ pairs with zero points of 0, which every TensorRT from 8.6 on reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper
from torch import Tensor

from export.audit import Constants
from export.precision.int8_weights import Int8GraphWeight, carry_over, round_to_nearest
from export.precision.qdq_placement import Int8Plan, output_axis, tensors_read
from sparsegpt_core.errors import InputError, ModelError
from sparsegpt_core.network import Int8Weight

__all__ = ["to_int8"]

_OPSET = 13  # the first with a scale for each channel


def to_int8(
    model: onnx.ModelProto,
    plan: Int8Plan,
    scales: Mapping[str, float],
    integers: Mapping[str, Int8Weight] | None = None,
    state: Mapping[str, Tensor] | None = None,
) -> onnx.ModelProto:
    """Return an INT8 copy of an FP32 graph: node names, interface, opset and notes stay.

    A planned tensor passes QuantizeLinear and DequantizeLinear before the inputs that the plan names. A planned
    layer's weight is stored in int8 behind a DequantizeLinear with a scale for each output channel; a zero stays
    zero. Biases stay in FP32.

    Args:
        model: What ``plan`` was made from.
        plan: See :func:`~export.precision.plan_int8`.
        scales: The size of an integer step for each of ``plan.tensors``.
        integers: Weights that are on a grid already, by module; others are rounded to nearest.
        state: State dict of the network as it was exported; needed for ``integers`` alone.

    Raises:
        InputError: A scale is missing or not positive, or a module of ``integers`` has no weight in ``state``.
        ModelError: The opset is below 13.
        NumericsError: A weight holds NaN or infinity.
        CheckFailedError: Names the layer whose integers do not fit the graph.
    """
    opset = next(each.version for each in model.opset_import if each.domain in ("", "ai.onnx"))
    if opset < _OPSET:
        raise ModelError(f"opset {opset} has no scales per channel", f"Export with opset {_OPSET} or later.")
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    rewriting = _Rewriting(copy.graph, plan, scales, integers or {}, state or {})
    for node in model.graph.node:
        rewriting.add(node)
    del copy.graph.node[:]
    copy.graph.node.extend(rewriting.nodes)
    _drop_unused(copy.graph)
    return copy


class _Rewriting:
    """The nodes of the new graph, as they come to be; new constants go into ``graph``."""

    def __init__(
        self,
        graph: onnx.GraphProto,
        plan: Int8Plan,
        scales: Mapping[str, float],
        integers: Mapping[str, Int8Weight],
        state: Mapping[str, Tensor],
    ) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self._graph, self._plan, self._scales = graph, plan, scales
        self._integers, self._state = integers, state
        self._constants = Constants(graph)
        self._layers = set(plan.layers)
        self._names = {*tensors_read(graph.node), *(output for node in graph.node for output in node.output)}
        self._names.update(each.name for each in (*graph.input, *graph.initializer))
        self._pairs: dict[str, str] = {}
        self._weights: dict[tuple[str, int, str], tuple[str, Int8GraphWeight]] = {}

    def add(self, original: onnx.NodeProto) -> None:
        """Add a node, after the Q/DQ nodes that it is the first to read from."""
        node = onnx.NodeProto()
        node.CopyFrom(original)
        for index, tensor in enumerate(original.input):
            if (original.output[0], index) in self._plan.reads:
                node.input[index] = self._pair(tensor)
        name = node.name or node.output[0]
        shift = None
        if name in self._layers:
            node.input[1], weight = self._weight(node, name)
            shift = weight.shift
        self.nodes.append(node)
        if shift is not None and shift.any():
            self._shift(node, shift)

    def _pair(self, tensor: str) -> str:
        if tensor not in self._pairs:
            scale = self._constant(f"{tensor}_scale", self._scale(self._plan.ranges[tensor]))
            zero = self._constant(f"{tensor}_zero_point", np.int8(0))
            quantized = self._operation("QuantizeLinear", [tensor, scale, zero], f"{tensor}_quantized")
            self._pairs[tensor] = self._operation("DequantizeLinear", [quantized, scale, zero], f"{tensor}_dequantized")
        return self._pairs[tensor]

    def _scale(self, tensor: str) -> np.float32:
        if tensor not in self._scales:
            raise InputError(f"no scale is given for tensor {tensor}", "Calibrate the tensors of this very plan.")
        with np.errstate(over="ignore", under="ignore"):
            scale: np.float32 = np.float32(self._scales[tensor])
        if not 0 < scale < np.inf:
            raise InputError(f"scale {self._scales[tensor]:g} of tensor {tensor} is no positive FP32 number")
        return scale

    def _weight(self, node: onnx.NodeProto, name: str) -> tuple[str, Int8GraphWeight]:
        """Quantise the node's weight, once for all nodes that read it and take the same integers."""
        axis, module = output_axis(node), name.partition("#")[0]
        key = (node.input[1], axis, module if module in self._integers else "")
        if key not in self._weights:
            weight = self._int8_weight(self._constants.value(node.input[1]), axis, module)
            base = self._constants.source(node.input[1])
            integers = self._constant(f"{base}_quantized", weight.values)
            scale = self._constant(f"{base}_scale", weight.scales)
            zero = self._constant(f"{base}_zero_point", np.zeros(len(weight.scales), dtype=np.int8))
            output = self._operation("DequantizeLinear", [integers, scale, zero], f"{base}_dequantized", axis=axis)
            self._weights[key] = output, weight
        return self._weights[key]

    def _int8_weight(self, weight: npt.NDArray[Any] | None, axis: int, module: str) -> Int8GraphWeight:
        if weight is None:
            raise InputError(f"{module} has no constant weight", "Give the graph that the plan was made from.")
        if module not in self._integers:
            return round_to_nearest(weight, axis, module)
        exported = self._state.get(f"{module}.weight")
        if exported is None:
            raise InputError(f"no weight of {module} in the network's state", "Give the state that was exported.")
        return carry_over(self._integers[module], exported, weight, axis, module)

    def _shift(self, node: onnx.NodeProto, shift: npt.NDArray[Any]) -> None:
        """Add to the outputs of the last node: in its bias, or behind a MatMul."""
        if node.op_type == "MatMul":
            output = node.output[0]
            node.output[0] = self._unique(f"{output}_unshifted")
            inputs = [node.output[0], self._constant(f"{output}_shift", shift)]
            self.nodes.append(helper.make_node("Add", inputs, [output], name=f"{output}_Add"))
        elif len(node.input) > 2:
            bias = self._constants.value(node.input[2])
            if bias is None:
                raise InputError(f"the bias of {node.name} is not constant", "Export the network without integers.")
            node.input[2] = self._constant(f"{node.input[2]}_shifted", bias + shift)
        else:
            node.input.append(self._constant(f"{node.input[1]}_bias", shift))

    def _constant(self, name: str, value: Any) -> str:
        name = self._unique(name)
        self._graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
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


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Drop the FP32 weights that nothing reads any more, and nodes that only moved them."""
    used = {value.name for value in graph.output}
    nodes = []
    for node in reversed(graph.node):
        if not used.isdisjoint(node.output):
            nodes.append(node)
            used.update(tensors_read([node]))
    unread = {tensor.name for tensor in graph.initializer} - used
    for field, kept in (
        (graph.node, nodes[::-1]),
        (graph.initializer, [tensor for tensor in graph.initializer if tensor.name in used]),
        (graph.input, [value for value in graph.input if value.name not in unread]),
    ):
        del field[:]
        field.extend(kept)
