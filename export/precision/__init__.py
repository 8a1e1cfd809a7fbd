"""Turns an FP32 graph into FP16, or into INT8 with Q/DQ nodes.

May import ``importing``, ``execution``, ``writing``, ``audit`` and ``sparsegpt_core``.
"""

from export.precision.fp16 import Underflow, fp16_overflows, fp16_underflows, to_fp16
from export.precision.imported import convertible
from export.precision.int8 import MIN_INT8_OPSET, set_scales, to_int8
from export.precision.qdq_placement import plan_int8

__all__ = [
    "MIN_INT8_OPSET",
    "Underflow",
    "convertible",
    "fp16_overflows",
    "fp16_underflows",
    "plan_int8",
    "set_scales",
    "to_fp16",
    "to_int8",
]
