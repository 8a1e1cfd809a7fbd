"""Asks NVIDIA's driver which GPU CUDA uses."""

from __future__ import annotations

__all__ = ["GPU", "NO_DRIVER_HINT", "find_cuda_version", "find_gpu", "has_sparse_tensor_cores", "require_gpu"]

import ctypes
import functools
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from typing import Optional

from sparsegpt_core.errors import InputError

NO_DRIVER_HINT = "Install NVIDIA's driver. In a container, use `docker run --gpus all`."
"""How to get ``libcuda.so.1``, which comes with the driver alone."""

_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76  # of CUdevice_attribute in cuda.h
_FIRST_SPARSE_MAJOR = 8  # of Ampere
_NVIDIA_SMI_TIMEOUT_S = 20


@dataclass(frozen=True)
class GPU:
    """The GPU that CUDA uses."""

    name: str
    """Such as ``NVIDIA A100``."""
    driver: Optional[str]
    """The driver's version; None where nvidia-smi does not tell it."""
    compute_capability: str
    """Such as ``8.6``."""
    cuda: str
    """The newest CUDA that the driver supports, such as ``12.8``."""


def find_gpu() -> Optional[GPU]:
    """Return the GPU that CUDA uses, or None without one.

    Example:
        >>> find_gpu()  # doctest: +SKIP
        GPU(name='NVIDIA A100', driver='580.65', compute_capability='8.0', cuda='13.0')
    """
    try:
        return require_gpu()
    except InputError:
        return None


def has_sparse_tensor_cores(compute_capability: str) -> bool:
    """Return whether GPUs of a compute capability have sparse tensor cores: Ampere and newer have.

    Example:
        >>> has_sparse_tensor_cores("8.6"), has_sparse_tensor_cores("7.5")
        (True, False)
    """
    return int(compute_capability.partition(".")[0]) >= _FIRST_SPARSE_MAJOR


def require_gpu() -> GPU:
    """Return the GPU that CUDA uses: that of the current context, else CUDA's first.

    The driver is asked, since it obeys ``CUDA_VISIBLE_DEVICES`` and numbers GPUs as CUDA does. nvidia-smi does neither.

    Raises:
        InputError: There is no driver, or it finds no GPU.

    Example:
        >>> require_gpu().compute_capability  # doctest: +SKIP
        '8.0'
    """
    cuda = _load_driver()
    if cuda is None:
        raise InputError("there is no NVIDIA driver: libcuda.so.1 cannot be loaded", NO_DRIVER_HINT)
    device, major, minor = (ctypes.c_int() for _ in range(3))
    name = ctypes.create_string_buffer(256)
    code = (
        cuda.cuInit(0)
        # without a current context this fails, and so the first GPU is taken
        or (cuda.cuCtxGetDevice(ctypes.byref(device)) and cuda.cuDeviceGet(ctypes.byref(device), 0))
        or cuda.cuDeviceGetName(name, len(name), device)
        or cuda.cuDeviceGetAttribute(ctypes.byref(major), _CAPABILITY_MAJOR, device)
        or cuda.cuDeviceGetAttribute(ctypes.byref(minor), _CAPABILITY_MINOR, device)
    )
    version = find_cuda_version()
    if code or version is None:
        raise _no_gpu(cuda, code)
    capability = f"{major.value}.{minor.value}"
    return GPU(name.value.decode(errors="replace"), _driver_version(), capability, version)


def find_cuda_version() -> Optional[str]:
    """Return the newest CUDA that the driver supports, or None without a driver. It needs no GPU.

    Example:
        >>> find_cuda_version()  # doctest: +SKIP
        '13.0'
    """
    cuda, version = _load_driver(), ctypes.c_int()
    if cuda is None or cuda.cuDriverGetVersion(ctypes.byref(version)):
        return None
    return f"{version.value // 1000}.{version.value % 1000 // 10}"


def _load_driver() -> Optional[ctypes.CDLL]:
    try:
        return ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None


def _no_gpu(cuda: ctypes.CDLL, code: int) -> InputError:
    text = ctypes.c_char_p()
    cuda.cuGetErrorString(code, ctypes.byref(text))
    reason = text.value.decode(errors="replace") if text.value else f"error {code}"
    problem = f"CUDA finds no usable GPU: {reason}"
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return InputError(problem, "Use a machine with an NVIDIA GPU (see nvidia-smi), or `docker run --gpus all`.")
    return InputError(
        f"{problem}, and CUDA_VISIBLE_DEVICES is '{visible}'",
        "Set CUDA_VISIBLE_DEVICES to a GPU that `nvidia-smi -L` lists, or unset it.",
    )


@functools.lru_cache(maxsize=1)
def _driver_version() -> Optional[str]:
    """Ask nvidia-smi once per process: with many GPUs it can take seconds."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    query = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=_NVIDIA_SMI_TIMEOUT_S, check=True).stdout
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    found = re.match(r"[0-9]+(\.[0-9]+)+$", answer, re.MULTILINE)
    return found.group() if found else None
