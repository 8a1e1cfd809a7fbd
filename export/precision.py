"""FP16-typed graphs: TensorRT 11 builds only what the graph's types say."""

from __future__ import annotations

import logging
import warnings

import numpy as np
import onnx
from onnx import numpy_helper

from sparsegpt_core.errors import NumericsError

__all__ = ["to_fp16"]

_LIMIT = float(np.finfo(np.float16).max)


def to_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return an FP16 copy of an FP32 graph that keeps FP32 inputs and outputs.

    ONNX Runtime's converter inserts the casts at both ends and leaves in FP32 what has no FP16 form.
    Casting keeps zeros zero; values too small for FP16 become zero.

    Raises:
        NumericsError: A weight lies beyond FP16's range (65504).
    """
    # Imported here: the package pulls in a good part of onnxruntime.
    from onnxruntime.transformers.float16 import convert_float_to_float16

    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            largest = float(np.abs(numpy_helper.to_array(tensor)).max(initial=0))
            if largest > _LIMIT:
                raise NumericsError(
                    f"{tensor.name} holds {largest:g}, beyond FP16's range of {_LIMIT:g}",
                    "Export with --precision fp32.",
                )
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    logger = logging.getLogger("onnxruntime.transformers.float16")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # values that FP16 rounds to zero; the audit looks at the result
        converted: onnx.ModelProto = convert_float_to_float16(copy, keep_io_types=True)
    logger.setLevel(level)
    return converted
