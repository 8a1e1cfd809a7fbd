"""Converts FP32 graphs to FP16. TensorRT 11 takes the precision of each layer from the graph's types alone."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper
from torch import Tensor

from export.audit import is_custom
from export.execution import FEW_SAMPLES, CpuSession, first_samples, inferred, probed, tensor_types
from export.precision.fp16_casts import replace_items, tidy_casts
from export.writing import fits_in_protobuf
from sparsegpt_core.errors import InputError, ModelError, NumericsError

__all__ = ["FP32_OPERATORS", "Underflow", "fp16_overflows", "fp16_underflows", "to_fp16"]

FP32_OPERATORS = (
    # Sums over many elements: a sum of squares or exponentials exceeds FP16's range or its 11 bits of precision.
    *("ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp"),
    *("GlobalAveragePool", "LayerNormalization", "InstanceNormalization", "GroupNormalization", "LpNormalization"),
    *("Softmax", "LogSoftmax"),
    # Functions that exceed FP16's range at small arguments: exp(11.1), 256².
    *("Exp", "Pow"),
)
"""Operators that stay in FP32, in addition to those for which ONNX Runtime's converter knows no FP16 form."""

_MAX_FP16 = float(np.finfo(np.float16).max)  # 65504
_FAR = 8  # a magnitude on a few samples this many times below FP16's limit stays below it on all
_MIN_FP16 = float(np.finfo(np.float16).smallest_subnormal)  # 6e-8
_FP16_INFINITY = 0x7C00  # its bits
_MIN_QDQ_OPSET = 19  # the first one in which Q and DQ may have FP16 scales


def to_fp16(
    model: onnx.ModelProto, io_dtype: str = "fp32", keep: Iterable[str] = (), *, in_place: bool = False
) -> onnx.ModelProto:
    """Return the FP16 form of an FP32 graph, with or without Q/DQ.

    ONNX Runtime's converter does the work. :data:`FP32_OPERATORS`, custom operators and the nodes that use a weight
    beyond FP16's range stay in FP32. Zeros stay zero. Other values too small for FP16 become its smallest number, 6e-8.

    Args:
        model: The FP32 graph. With Q/DQ nodes it needs opset 19 or later, because their scales become FP16.
        io_dtype: The type of inputs and outputs: ``fp32`` or ``fp16``.
        keep: Names of more nodes to keep in FP32, such as those that :func:`fp16_overflows` returns.
        in_place: Whether the FP32 graph may be changed, to spare a copy.

    Raises:
        InputError: ``io_dtype`` is neither.
        NumericsError: A weight is NaN or infinite.
        ModelError: The graph has branches or loops, or Q/DQ nodes of an older opset.

    Example:
        >>> from torch import nn
        >>> from export.writing import export_model
        >>> model = to_fp16(export_model(nn.Conv2d(4, 4, 1).eval(), (4, 8, 8)))
        >>> [node.op_type for node in model.graph.node]
        ['Cast', 'Conv', 'Cast']
    """
    # Imported here because the package loads many other modules.
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    if io_dtype not in ("fp32", "fp16"):
        raise InputError(f"unknown `io_dtype` '{io_dtype}'", "Use fp32 or fp16.")
    _require_convertible(model)
    blocked = {*keep, *_users(model.graph, _overflowing_weights(model))}
    blocked |= {node.name for node in model.graph.node if is_custom(node)}  # of unknown types
    names = {node.name for node in model.graph.node}
    if not in_place:
        original, model = model, onnx.ModelProto()
        model.CopyFrom(original)
    # The converter would cast a weight that has a type in value_info.
    weights = {tensor.name for tensor in model.graph.initializer}
    replace_items(model.graph.value_info, [each for each in model.graph.value_info if each.name not in weights])
    if fits_in_protobuf(model):  # the converter would infer shapes too, on two copies of the weights
        types = inferred(model).graph
        replace_items(model.graph.value_info, types.value_info)
        replace_items(model.graph.output, types.output)
    with _quiet_converter(), _fast_conversion():
        fp16_model: onnx.ModelProto = convert_float_to_float16(
            model,
            keep_io_types=io_dtype == "fp32",
            disable_shape_infer=True,
            op_block_list=[*DEFAULT_OP_BLOCK_LIST, *FP32_OPERATORS],
            node_block_list=sorted(blocked),
        )
    tidy_casts(fp16_model.graph, names)
    OnnxModel.graph_topological_sort(fp16_model.graph)  # the converter appends its casts at the end
    return fp16_model


def fp16_overflows(model: onnx.ModelProto, inputs: Sequence[Tensor]) -> dict[str, float]:
    """Find the nodes that must stay in FP32: on real inputs they read or compute a value beyond 65504.

    ONNX Runtime's CPU kernels compute most of an FP16 graph in FP32 and do not overflow, so the largest magnitude of
    every tensor is measured in the FP32 graph: on the first four samples, and on all of them if one of those magnitudes
    is more than an eighth of the limit.

    Args:
        model: The FP32 graph. Every node has a name.
        inputs: One tensor for each input of the graph.

    Returns:
        The largest magnitude that each such node reads or computes, by node name in the graph's order.

    Raises:
        NumericsError: A weight is NaN or infinite.
        ModelError: ONNX Runtime cannot run the graph on these inputs.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from export.writing import export_model
        >>> model = export_model(nn.AvgPool2d(2), (1, 4, 4))
        >>> fp16_overflows(model, [torch.full((2, 1, 4, 4), 1e5)])
        {'AveragePool_0': 100000.0}
    """
    return _users(model.graph, {**_overflowing_weights(model), **_overflowing_activations(model, inputs)})


class Underflow(NamedTuple):
    """The non-zeros of a weight that are too small for FP16."""

    values: int
    """Their number."""
    share: float
    """Their share of all non-zeros, 0 to 1."""


def fp16_underflows(model: onnx.ModelProto) -> dict[str, Underflow]:
    """Count the non-zeros that are too small for FP16 and become ±6e-8, for each weight that has any.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from export.writing import export_model
        >>> layer = nn.Conv2d(1, 2, 1).eval()
        >>> _ = torch.nn.init.constant_(layer.weight, 1e-9)
        >>> fp16_underflows(export_model(layer, (1, 4, 4)))
        {'weight': Underflow(values=2, share=1.0)}
    """
    counts = {}
    for name, tensor in _weights(model):
        value = np.abs(numpy_helper.to_array(tensor))
        if count := int(np.count_nonzero((value > 0) & (value < _MIN_FP16))):
            counts[name] = Underflow(count, count / int(np.count_nonzero(value)))
    return counts


@contextlib.contextmanager
def _quiet_converter() -> Iterator[None]:
    """Silence the converter's reports of values moved into FP16's range: fp16_underflows counts them."""
    logger = logging.getLogger("onnxruntime.transformers.float16")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def _fast_conversion() -> Iterator[None]:
    """Let the converter round weights with :func:`_rounded`: its own function goes through them twenty times.

    It also reads all values of a weight for its shape.
    """
    from onnxruntime.transformers import float16

    original = float16.convert_np_to_float16, float16.make_value_info_from_tensor
    float16.convert_np_to_float16, float16.make_value_info_from_tensor = _rounded, _value_info
    try:
        yield
    finally:
        float16.convert_np_to_float16, float16.make_value_info_from_tensor = original


def _value_info(tensor: onnx.TensorProto) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)


def _rounded(
    values: npt.NDArray[Any], min_positive_val: float = 5.96e-08, max_finite_val: float = _MAX_FP16
) -> npt.NDArray[np.float16]:
    """Round to FP16. Non-zeros that are too small become ±6e-8, and finite values that are too large ±65504."""
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    bits = half.view(np.uint16) & np.uint16(0x7FFF)  # without the sign: NumPy computes with FP16 in software
    lost = (bits == 0) & (values != 0)
    half[lost] = np.copysign(np.float16(min_positive_val), values[lost])
    infinite = bits == _FP16_INFINITY
    if infinite.any():
        large = infinite & np.isfinite(values)
        half[large] = np.copysign(np.float16(max_finite_val), values[large])
    return half


def _require_convertible(model: onnx.ModelProto) -> None:
    if any(attribute.HasField("g") for node in model.graph.node for attribute in node.attribute):
        raise ModelError("graphs with branches or loops cannot be converted to FP16", "Export with `precision=fp32`.")
    opset = next((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), 0)
    if opset < _MIN_QDQ_OPSET and any(node.op_type == "DequantizeLinear" for node in model.graph.node):
        raise ModelError(f"Q/DQ with FP16 needs opset {_MIN_QDQ_OPSET}, the graph has {opset}", "Raise `opset`.")


def _weights(model: onnx.ModelProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            yield tensor.name, tensor


def _overflowing_weights(model: onnx.ModelProto) -> dict[str, float]:
    """Return the largest magnitude of each weight beyond FP16's range."""
    overflowing = {}
    for name, tensor in _weights(model):
        value = numpy_helper.to_array(tensor)
        largest = float(np.maximum(value.max(initial=0), -value.min(initial=0)))
        if not np.isfinite(largest):
            raise NumericsError(f"{name} contains NaN or infinity", "Check the weights.")
        if largest > _MAX_FP16:
            overflowing[name] = largest
    return overflowing


def _overflowing_activations(model: onnx.ModelProto, inputs: Sequence[Tensor]) -> dict[str, float]:
    """Run the graph with the largest magnitude of each float tensor as its outputs; return those beyond the range."""
    names = [name for name, kind in tensor_types(model).items() if kind == onnx.TensorProto.FLOAT]
    probes = onnx.GraphProto()
    for index, name in enumerate(names):
        magnitude, largest = f"magnitude {index}", f"largest {index}"
        probes.node.append(helper.make_node("Abs", [name], [magnitude]))
        probes.node.append(helper.make_node("ReduceMax", [magnitude], [largest], keepdims=0))
        probes.output.append(helper.make_tensor_value_info(largest, onnx.TensorProto.FLOAT, []))
    with probed(model.graph, probes):
        session = CpuSession(model, "the FP32 graph")
    arrays = [each.cpu().numpy() for each in inputs]

    def beyond(limit: float, samples: int) -> dict[str, float]:
        values = session.run(first_samples(arrays, samples))
        largest_values = {name: float(value.max()) for name, value in zip(names, values, strict=True)}
        return {name: value for name, value in largest_values.items() if not value <= limit}

    if len(arrays[0]) > FEW_SAMPLES and not beyond(_MAX_FP16 / _FAR, FEW_SAMPLES):
        return {}
    return beyond(_MAX_FP16, len(arrays[0]))


def _users(graph: onnx.GraphProto, tensors: dict[str, float]) -> dict[str, float]:
    """Return the nodes that read or compute one of the tensors, with the largest of the tensors' magnitudes."""
    used = {
        node.name: [tensors[each] for each in (*node.input, *node.output) if each in tensors] for node in graph.node
    }
    return {name: max(values) for name, values in used.items() if values}
