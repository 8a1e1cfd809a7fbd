"""Writes PyTorch networks as ONNX files.

May import ``audit`` and ``sparsegpt_core``.
"""

from export.writing.saving import fits_in_protobuf, is_large, save_model, staged_model
from export.writing.writer import OPSET, TracedNetwork, export_model

__all__ = ["OPSET", "TracedNetwork", "export_model", "fits_in_protobuf", "is_large", "save_model", "staged_model"]
