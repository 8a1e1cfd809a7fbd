"""FP16-typed graphs: TensorRT 11 builds only what the graph's types say."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper
from torch import Tensor

from export.execution import CpuSession, tensor_types
from export.precision.fp16_casts import replace, tidy_casts
from export.writing import fits_in_protobuf
from sparsegpt_core.errors import InputError, ModelError, NumericsError

__all__ = ["FP32_OPERATORS", "fp16_overflows", "fp16_underflows", "to_fp16"]

FP32_OPERATORS = (
    # Sums over many elements, whose sum of squares or of exponentials leaves FP16's range or its 11 bits.
    *("ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp"),
    *("GlobalAveragePool", "LayerNormalization", "InstanceNormalization", "GroupNormalization", "LpNormalization"),
    *("Softmax", "LogSoftmax"),
    # Functions that leave the range at small arguments: exp(11.1) and 256² do.
    *("Exp", "Pow"),
)
"""What stays in FP32, beside what ONNX Runtime's converter knows to have no FP16 form."""

_LIMIT = float(np.finfo(np.float16).max)
_LEAST = float(np.finfo(np.float16).smallest_subnormal)
_QDQ_OPSET = 19  # the first in which Q and DQ may have FP16 scales


def to_fp16(model: onnx.ModelProto, io_dtype: str = "fp32", keep: Iterable[str] = ()) -> onnx.ModelProto:
    """Return an FP16 copy of an FP32 graph, with or without Q/DQ.

    ONNX Runtime's converter does the work. :data:`FP32_OPERATORS` stay in FP32, and so do the nodes that use a
    weight beyond FP16's range. Zeros stay zero; other values too small for FP16 become its smallest number, 6e-8.

    Args:
        model: Of opset 19 or later where it holds Q/DQ, whose scales become FP16.
        io_dtype: ``fp32`` or ``fp16``: what inputs and outputs are.
        keep: Names of further nodes to keep in FP32, such as those of :func:`fp16_overflows`.

    Raises:
        InputError: ``io_dtype`` is neither.
        NumericsError: A weight is NaN or infinite.
        ModelError: The graph has branches or loops, or Q/DQ of an older opset.
    """
    # Imported here: the package pulls in a good part of onnxruntime.
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    if io_dtype not in ("fp32", "fp16"):
        raise InputError(f"unknown type of inputs and outputs '{io_dtype}'", "Use fp32 or fp16.")
    _require_convertible(model)
    blocked = {*keep, *_users(model.graph, _loud_weights(model))}
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    weights = {tensor.name for tensor in model.graph.initializer}  # the converter would cast what value_info types
    replace(copy.graph.value_info, [each for each in model.graph.value_info if each.name not in weights])
    with _quiet_converter():
        converted: onnx.ModelProto = convert_float_to_float16(
            copy,
            keep_io_types=io_dtype == "fp32",
            disable_shape_infer=not fits_in_protobuf(model),
            op_block_list=[*DEFAULT_OP_BLOCK_LIST, *FP32_OPERATORS],
            node_block_list=sorted(blocked),
        )
    tidy_casts(converted.graph, {node.name for node in model.graph.node})
    OnnxModel.graph_topological_sort(converted.graph)  # the converter appends its casts at the end
    return converted


def fp16_overflows(model: onnx.ModelProto, inputs: Sequence[Tensor]) -> dict[str, float]:
    """Find the nodes that FP16 cannot serve: they take or give a value beyond 65504, on real inputs.

    ONNX Runtime's CPU kernels compute FP16 graphs mostly in FP32 and would not notice, so the largest magnitude of
    every tensor is taken in the FP32 graph.

    Args:
        model: The FP32 graph, its nodes named.
        inputs: One tensor for each input of the graph.

    Returns:
        For each such node, in the graph's order, the largest magnitude that it meets.

    Raises:
        NumericsError: A weight is NaN or infinite.
        ModelError: ONNX Runtime cannot run the graph on these inputs.
    """
    loud = {**_loud_weights(model), **_loud_activations(model, inputs)}
    return _users(model.graph, loud)


def fp16_underflows(model: onnx.ModelProto) -> dict[str, int]:
    """Count, for each weight that has any, the non-zeros too small for FP16, which become ±6e-8."""
    counts = {}
    for name, tensor in _weights(model):
        value = np.abs(numpy_helper.to_array(tensor))
        if count := int(np.count_nonzero((value > 0) & (value < _LEAST))):
            counts[name] = count
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


def _require_convertible(model: onnx.ModelProto) -> None:
    if any(attribute.HasField("g") for node in model.graph.node for attribute in node.attribute):
        raise ModelError("a graph with branches or loops has no FP16 form here", "Export with --precision fp32.")
    opset = next((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), 0)
    if opset < _QDQ_OPSET and any(node.op_type == "DequantizeLinear" for node in model.graph.node):
        raise ModelError(f"Q/DQ with FP16 needs opset {_QDQ_OPSET}, the graph has {opset}", "Raise --opset.")


def _weights(model: onnx.ModelProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            yield tensor.name, tensor


def _loud_weights(model: onnx.ModelProto) -> dict[str, float]:
    loud = {}
    for name, tensor in _weights(model):
        largest = float(np.abs(numpy_helper.to_array(tensor)).max(initial=0))
        if not np.isfinite(largest):
            raise NumericsError(f"{name} holds NaN or infinity", "Check the weights.")
        if largest > _LIMIT:
            loud[name] = largest
    return loud


def _loud_activations(model: onnx.ModelProto, inputs: Sequence[Tensor]) -> dict[str, float]:
    """Run the graph with the largest magnitude of each float tensor as its outputs."""
    probed = onnx.ModelProto()
    probed.CopyFrom(model)
    del probed.graph.output[:]
    names = [name for name, kind in tensor_types(model).items() if kind == onnx.TensorProto.FLOAT]
    for index, name in enumerate(names):
        magnitude, largest = f"magnitude {index}", f"largest {index}"
        probed.graph.node.append(helper.make_node("Abs", [name], [magnitude]))
        probed.graph.node.append(helper.make_node("ReduceMax", [magnitude], [largest], keepdims=0))
        probed.graph.output.append(helper.make_tensor_value_info(largest, onnx.TensorProto.FLOAT, []))
    values = CpuSession(probed, "the FP32 graph").run([each.cpu().numpy() for each in inputs])
    return {name: float(value) for name, value in zip(names, values, strict=True) if not value <= _LIMIT}


def _users(graph: onnx.GraphProto, tensors: dict[str, float]) -> dict[str, float]:
    """Return the nodes that take or give one of the tensors, with the largest of their values."""
    met = {node.name: [tensors[each] for each in (*node.input, *node.output) if each in tensors] for node in graph.node}
    return {name: max(values) for name, values in met.items() if values}
