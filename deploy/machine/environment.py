"""Describes the machine and the library versions, so that a result or an engine can record them."""

from __future__ import annotations

__all__ = ["describe_environment"]

import os
import platform
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any, Optional

from deploy.machine.gpu import find_gpu

_DISTRIBUTIONS = {
    "numpy": ["numpy"],
    "onnx": ["onnx"],
    "onnxruntime": ["onnxruntime", "onnxruntime-gpu"],
    "torch": ["torch"],
    "tensorrt": ["tensorrt", "tensorrt-cu13", "tensorrt-cu12"],
    "tensorrt_rtx": ["tensorrt-rtx", "tensorrt-rtx-cu13", "tensorrt-rtx-cu12"],
    "polygraphy": ["polygraphy"],
}


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
