"""What machine and which libraries a figure or an engine came from."""

from __future__ import annotations

__all__ = ["GPU", "describe_environment", "find_gpu"]

import ctypes
import os
import platform
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


# Of the driver's CUdevice_attribute.
_MAJOR, _MINOR = 75, 76


@dataclass(frozen=True)
class GPU:
    """The first GPU: its name, the driver's version, and the compute capability, such as 8.6."""

    name: str
    driver: str
    compute_capability: str


def describe_environment() -> dict[str, Any]:
    """Describe this machine; what cannot be found out is None. Imports none of the libraries it names."""
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
    """Ask nvidia-smi for the first GPU, or the driver where there is none, as on a Jetson; None without a GPU."""
    return _from_nvidia_smi() or _from_driver()


def _from_nvidia_smi() -> Optional[GPU]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    command = [program, "--query-gpu=name,driver_version,compute_cap", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
        name, driver, capability = (field.strip() for field in answer.splitlines()[0].rsplit(",", 2))
    except (OSError, subprocess.SubprocessError, IndexError, ValueError):
        return None
    return GPU(name, driver, capability)


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
        or cuda.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device)
        or cuda.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device)
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
