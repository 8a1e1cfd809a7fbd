"""Builds TensorRT engines, and reads their build log and the engine inspector.

May import ``graph``, ``machine`` and below.
"""

from deploy.builder.build_log import SparsityLog, count_memory_skips, read_sparsity
from deploy.builder.compiler import capturing_logger
from deploy.builder.engine_build import BuildResult, build_engine, load_plan
from deploy.builder.inspector import EngineLayer, inspect_engine, node_names, read_engine_information
from deploy.builder.settings import BuildSettings

__all__ = [
    "BuildResult",
    "BuildSettings",
    "EngineLayer",
    "SparsityLog",
    "build_engine",
    "capturing_logger",
    "count_memory_skips",
    "inspect_engine",
    "load_plan",
    "node_names",
    "read_engine_information",
    "read_sparsity",
]
