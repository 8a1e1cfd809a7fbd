"""Reads ONNX files as networks that can run and be pruned as PyTorch modules, and writes their weights back.

May import ``audit``, ``execution`` and ``sparsegpt_core``.
"""

from export.importing.onnx_network import OnnxNetwork

__all__ = ["OnnxNetwork"]
