"""Describes the machine and the library versions, so that a result or an engine can record them."""

from __future__ import annotations

__all__ = ["GPU", "describe_environment", "find_gpu"]

import ctypes
import os
import platform
import re
import shutil
import subprocess
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Optional

_DISTRIBUTIONS = {
    "numpy": ["numpy"],
    "onnx": ["onnx"],
    "onnxruntime": ["onnxruntime", "onnxruntime-gpu"],
    "torch": ["torch"],
    "tensorrt": ["tensorrt", "tensorrt-cu13", "tensorrt-cu12"],
    "tensorrt_rtx": ["tensorrt-rtx", "tensorrt-rtx-cu13", "tensorrt-rtx-cu12"],
    "polygraphy": ["polygraphy"],
}

_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76  # of CUdevice_attribute in cuda.h
_NVIDIA_SMI_TIMEOUT_S = 20


@dataclass(frozen=True)
class GPU:
    """The first GPU."""

    name: str
    """Such as ``NVIDIA A100``."""
    driver: str
    """The driver's version."""
    compute_capability: str
    """Such as ``8.6``."""


def describe_environment() -> dict[str, Any]:
    """Describe this machine. A value is None where it is unknown; no described library is imported.

    Example:
        >>> sorted(describe_environment())
        ['cores', 'cpu', 'gpu', 'memory_bytes', 'platform', 'python', 'versions']
    """
    gpu = find_gpu()
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "versions": {name: _version(names) for name, names in _DISTRIBUTIONS.items()},
        "gpu": asdict(gpu) if gpu else None,
    }


def find_gpu() -> Optional[GPU]:
    """Return the first GPU, or None without one.

    nvidia-smi is asked first, then the driver itself, since a Jetson's nvidia-smi is missing or answers ``[N/A]``.

    Example:
        >>> find_gpu()  # doctest: +SKIP
        GPU(name='NVIDIA A100', driver='580.65', compute_capability='8.0')
    """
    return _from_nvidia_smi() or _from_driver()


def _from_nvidia_smi() -> Optional[GPU]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    query = [program, "--query-gpu=name,driver_version,compute_cap", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=_NVIDIA_SMI_TIMEOUT_S, check=True).stdout
        name, driver, capability = (field.strip() for field in answer.splitlines()[0].rsplit(",", 2))
    except (OSError, subprocess.SubprocessError, IndexError, ValueError):
        return None
    return GPU(name, driver, capability) if re.fullmatch(r"[0-9]+\.[0-9]+", capability) else None


def _from_driver() -> Optional[GPU]:
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    device, version, major, minor = (ctypes.c_int() for _ in range(4))
    name = ctypes.create_string_buffer(256)
    failed = (
        cuda.cuInit(0)
        or cuda.cuDeviceGet(ctypes.byref(device), 0)
        or cuda.cuDeviceGetName(name, len(name), device)
        or cuda.cuDeviceGetAttribute(ctypes.byref(major), _CAPABILITY_MAJOR, device)
        or cuda.cuDeviceGetAttribute(ctypes.byref(minor), _CAPABILITY_MINOR, device)
        or cuda.cuDriverGetVersion(ctypes.byref(version))
    )
    if failed:
        return None
    cuda_version = f"{version.value // 1000}.{version.value % 1000 // 10}"
    return GPU(name.value.decode(errors="replace"), f"for CUDA {cuda_version}", f"{major.value}.{minor.value}")


def _version(names: list[str]) -> Optional[str]:
    for name in names:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def _cpu_name() -> Optional[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or None
