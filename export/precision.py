"""FP16-typed graphs: TensorRT 11 builds only what the graph's types say."""

from __future__ import annotations

import logging
import warnings

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from sparsegpt_core.errors import NumericsError
from sparsegpt_core.layout import device_of

__all__ = ["check_fp16_range", "to_fp16"]

_LIMIT = float(np.finfo(np.float16).max)


def to_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return an FP16 copy of an FP32 graph that keeps FP32 inputs and outputs.

    ONNX Runtime's converter inserts the casts at both ends and leaves in FP32 what has no FP16 form.
    Zeros stay zero; other values too small for FP16 become its smallest number, 6e-8.

    Raises:
        NumericsError: A weight is NaN or lies beyond FP16's range (65504).
    """
    # Imported here: the package pulls in a good part of onnxruntime.
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            largest = float(np.abs(numpy_helper.to_array(tensor)).max(initial=0))
            if not largest <= _LIMIT:
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
        warnings.simplefilter("ignore")  # of values moved into FP16's range; the audit looks at the result
        converted: onnx.ModelProto = convert_float_to_float16(copy, keep_io_types=True)
    logger.setLevel(level)
    OnnxModel.graph_topological_sort(converted.graph)  # the converter appends its casts at the end
    return converted


def check_fp16_range(model: nn.Module, images: Tensor) -> None:
    """Check that no layer's output overflows FP16, on real images.

    ONNX Runtime's CPU kernels compute FP16 graphs mostly in FP32 and would not notice.

    Args:
        model: In float32 and in eval mode.
        images: (N, C, H, W), normalised.

    Raises:
        NumericsError: Names the first module whose output lies beyond FP16's range (65504).
    """

    def check(name: str, output: object) -> None:
        largest = float(output.abs().max()) if isinstance(output, Tensor) and output.numel() else 0.0
        if not largest <= _LIMIT:
            raise NumericsError(
                f"{name} puts out {largest:g}, beyond FP16's range of {_LIMIT:g}", "Export with --precision fp32."
            )

    leaves = [(name, module) for name, module in model.named_modules() if not list(module.children())]
    hooks = [m.register_forward_hook(lambda _m, _i, out, name=name: check(name, out)) for name, m in leaves]
    try:
        with torch.inference_mode():
            model(images.to(device_of(model)))
    finally:
        for hook in hooks:
            hook.remove()
