"""Chooses the runtime of a benchmark: TensorRT where there are a GPU and a backend, else ONNX Runtime.

ONNX Runtime can also run TensorRT itself, through its TensorRT execution provider; that is used only on request.
"""

from __future__ import annotations

__all__ = ["RUNTIMES", "TENSORRT_PROVIDER", "find_runtime"]

from typing import Optional, Tuple

from deploy.machine.backends import Backend, find_backend, known_compute_capabilities
from deploy.machine.cuda import connect
from deploy.machine.gpu import GPU, find_gpu
from deploy.machine.libraries import install_command, require
from sparsegpt_core.errors import InputError, SparseGPTError

RUNTIMES = ("auto", "onnxruntime", "onnxruntime-tensorrt", "tensorrt")
"""Names of runtimes; ``auto`` takes TensorRT where it can run, else ONNX Runtime on the CPU."""

TENSORRT_PROVIDER = "TensorrtExecutionProvider"
"""ONNX Runtime's name of its TensorRT execution provider."""


def find_runtime(wanted: str = "auto") -> Tuple[Optional[Backend], str]:
    """Find the backend that can run engines here.

    Args:
        wanted: One of ``RUNTIMES``.

    Returns:
        The backend and its description; or, for ONNX Runtime, None and the reason or its provider.

    Raises:
        InputError: The runtime is unknown; or it needs a GPU and none responds, TensorRT-RTX does not build for the
            GPU, or this ONNX Runtime has no TensorRT provider.
        MissingDependencyError: It is TensorRT and TensorRT or PyCUDA is not installed, or ONNX Runtime is not.

    Example:
        >>> find_runtime("onnxruntime")
        (None, 'as asked for')
    """
    if wanted not in RUNTIMES:
        raise InputError(f"unknown runtime '{wanted}'", f"Use {', '.join(RUNTIMES)}.")
    if wanted == "onnxruntime":
        return None, "as asked for"
    if wanted == "onnxruntime-tensorrt":
        return None, _find_provider()
    try:
        return _find_engines()
    except SparseGPTError as error:
        if wanted == "tensorrt":
            raise
        return None, f"since {error}"


def _find_engines() -> Tuple[Backend, str]:
    gpu = _require_gpu()
    backend = find_backend()
    if backend.is_rtx and gpu.compute_capability not in known_compute_capabilities(backend):
        raise InputError(
            f"TensorRT-RTX {backend.version} does not build for {_describe(gpu)}",
            f"Install TensorRT: {install_command('tensorrt')}.",
        )
    connect()
    return backend, f"{backend.name} {backend.version} on {_describe(_require_gpu())}"  # the GPU that PyCUDA took


def _find_provider() -> str:
    known = require("onnxruntime").get_available_providers()
    if TENSORRT_PROVIDER not in known:
        raise InputError(
            f"this ONNX Runtime has no {TENSORRT_PROVIDER}, only {', '.join(known)}",
            "Install one that has it: `pip uninstall onnxruntime`, then `pip install onnxruntime-gpu`.",
        )
    return f"{TENSORRT_PROVIDER} on {_describe(_require_gpu())}"


def _require_gpu() -> GPU:
    gpu = find_gpu()
    if gpu is None:
        raise InputError("engines run on an NVIDIA GPU and there is none", "Run `sparsegpt-trt doctor` for details.")
    return gpu


def _describe(gpu: GPU) -> str:
    return f"{gpu.name}, compute capability {gpu.compute_capability}"
