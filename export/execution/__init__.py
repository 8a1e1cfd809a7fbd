"""Runs ONNX graphs in ONNX Runtime on the CPU, and reads the activations inside them.

May import ``writing``, ``audit`` and ``sparsegpt_core``.
"""

from export.execution.activation_observer import observe_activations, with_outputs
from export.execution.cpu_session import FEW_SAMPLES, CpuSession, first_samples, inferred, open_model, tensor_types

__all__ = [
    "FEW_SAMPLES",
    "CpuSession",
    "first_samples",
    "inferred",
    "observe_activations",
    "open_model",
    "tensor_types",
    "with_outputs",
]
