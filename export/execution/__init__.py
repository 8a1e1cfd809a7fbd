"""Runs ONNX graphs in ONNX Runtime on the CPU, and reads the activations inside them.

May import ``writing``, ``audit`` and ``sparsegpt_core``.
"""

from export.execution.activation_observer import more_outputs, observe_activations, probed
from export.execution.cpu_session import FEW_SAMPLES, CpuSession, first_samples, inferred, open_model, tensor_types

__all__ = [
    "FEW_SAMPLES",
    "CpuSession",
    "first_samples",
    "inferred",
    "more_outputs",
    "observe_activations",
    "open_model",
    "probed",
    "tensor_types",
]
