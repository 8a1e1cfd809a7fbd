"""How much memory is used, is free, and was used at most."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import psutil
import torch

__all__ = ["available_memory", "peak_memory", "used_memory"]

_CGROUP = Path("/sys/fs/cgroup")


def used_memory(device: torch.device) -> int:
    """Return the bytes in use now: tensors on CUDA, the whole process elsewhere."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return int(psutil.Process().memory_info().rss)


def available_memory(device: torch.device) -> int:
    """Return the bytes that can still be had, within the limit of a container."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = int(psutil.virtual_memory().available)
    try:
        limit = int((_CGROUP / "memory.max").read_text())  # says "max" where there is none
        return min(free, limit - int((_CGROUP / "memory.current").read_text()))
    except (OSError, ValueError):
        return free


def peak_memory(device: torch.device) -> int:
    """Return the most bytes in use so far: tensors on CUDA, the whole process elsewhere."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
