"""Chooses the runtime of a benchmark: TensorRT where there are a GPU and a backend, else ONNX Runtime."""

from __future__ import annotations

__all__ = ["RUNTIMES", "find_runtime"]

from typing import Optional, Tuple

from deploy.machine.backends import Backend, find_backend, known_compute_capabilities
from deploy.machine.cuda import connect
from deploy.machine.environment import find_gpu
from sparsegpt_core.errors import InputError, SparseGPTError

RUNTIMES = ("auto", "onnxruntime", "tensorrt")
"""Names of runtimes; ``auto`` takes TensorRT where it can run."""


def find_runtime(wanted: str = "auto") -> Tuple[Optional[Backend], str]:
    """Find the backend that can run engines here.

    Args:
        wanted: One of ``RUNTIMES``.

    Returns:
        The backend and its description; or, for ONNX Runtime, None and the reason.

    Raises:
        InputError: The runtime is unknown; or it is TensorRT and no GPU responds, or TensorRT-RTX
            does not build for the GPU.
        MissingDependencyError: It is TensorRT and TensorRT or PyCUDA is not installed.

    Example:
        >>> find_runtime("onnxruntime")
        (None, 'as asked for')
    """
    if wanted not in RUNTIMES:
        raise InputError(f"unknown runtime '{wanted}'", f"Use {', '.join(RUNTIMES)}.")
    if wanted == "onnxruntime":
        return None, "as asked for"
    try:
        return _find_engines()
    except SparseGPTError as error:
        if wanted == "tensorrt":
            raise
        return None, f"since {error}"


def _find_engines() -> Tuple[Backend, str]:
    gpu = find_gpu()
    if gpu is None:
        raise InputError("engines run on an NVIDIA GPU and there is none", "Run `sparsegpt-trt doctor` for details.")
    backend = find_backend()
    found = f"{gpu.name}, compute capability {gpu.compute_capability}"
    if backend.is_rtx and gpu.compute_capability not in known_compute_capabilities(backend):
        raise InputError(
            f"TensorRT-RTX {backend.version} does not build for {found}", "Install TensorRT: `pip install tensorrt`."
        )
    connect()
    return backend, f"{backend.name} {backend.version} on {found}"
