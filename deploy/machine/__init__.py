"""Finds what this machine has: GPU, driver, TensorRT, CUDA bindings.

May import ``sparsegpt_core``'s torch-free modules.
"""

from deploy.machine.backends import BACKENDS, Backend, find_backend, known_compute_capabilities
from deploy.machine.cuda import Buffer, connect, free_memory, gpu_errors, pci_bus_id
from deploy.machine.doctor import Check, check_machine
from deploy.machine.environment import describe_environment
from deploy.machine.gpu import GPU, find_gpu, has_sparse_tensor_cores
from deploy.machine.interrupts import run_interruptibly
from deploy.machine.libraries import INSTALL, require
from deploy.machine.runtime_choice import TENSORRT_PROVIDER, find_runtime

__all__ = [
    "BACKENDS",
    "GPU",
    "INSTALL",
    "TENSORRT_PROVIDER",
    "Backend",
    "Buffer",
    "Check",
    "check_machine",
    "connect",
    "describe_environment",
    "find_backend",
    "find_gpu",
    "find_runtime",
    "free_memory",
    "gpu_errors",
    "has_sparse_tensor_cores",
    "known_compute_capabilities",
    "pci_bus_id",
    "require",
    "run_interruptibly",
]
