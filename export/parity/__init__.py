"""Compares an ONNX file's outputs with PyTorch's, and names the node where they part.

May import ``importing``, ``execution``, ``writing``, ``audit`` and ``sparsegpt_core``.
"""

from export.parity.parity import Parity, Reference, check_parity, reference_name

__all__ = ["Parity", "Reference", "check_parity", "reference_name"]
