"""Reads what a builder needs from an ONNX file: inputs, shapes, the work of each layer, and an engine's memory.

May import ``machine``, ``export.audit``, ``export.onnxruntime_session`` and ``sparsegpt_core``'s torch-free modules.
"""

from deploy.graph.memory import EngineMemory, estimate_memory
from deploy.graph.noise import random_inputs
from deploy.graph.onnx_file import OnnxFile
from deploy.graph.onnx_graph import Graph, InputShape, read_graph
from deploy.graph.shapes import DEFAULT_BATCHES, ShapeRange, Shapes, parse_shapes, resolve_shapes
from deploy.graph.signature import TensorSignature, graph_signature
from deploy.graph.workload import Product, Workload, read_workloads

__all__ = [
    "DEFAULT_BATCHES",
    "EngineMemory",
    "Graph",
    "InputShape",
    "OnnxFile",
    "Product",
    "ShapeRange",
    "Shapes",
    "TensorSignature",
    "Workload",
    "estimate_memory",
    "graph_signature",
    "parse_shapes",
    "random_inputs",
    "read_graph",
    "read_workloads",
    "resolve_shapes",
]
