"""Reads ONNX files as networks that can run and be pruned as PyTorch modules, and writes their weights back.

May import ``audit``, ``execution`` and ``sparsegpt_core``.
"""

from export.importing.file_description import is_onnx_file, onnx_config
from export.importing.onnx_network import OnnxNetwork
from export.importing.pruning import prune_onnx
from export.importing.runtime_call import element_type
from export.importing.segments import sorted_nodes

__all__ = ["OnnxNetwork", "element_type", "is_onnx_file", "onnx_config", "prune_onnx", "sorted_nodes"]
