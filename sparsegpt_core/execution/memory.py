"""The memory that is in use, that is available, and that was in use at most."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import psutil
import torch

__all__ = ["available_memory", "peak_memory", "used_memory"]

_CGROUP = Path("/sys/fs/cgroup")


def used_memory(device: torch.device) -> int:
    """Return the bytes in use: by tensors on CUDA, by the whole process on the CPU, without pages of mapped files.

    The system takes such pages back when memory is short.

    Example:
        >>> used_memory(torch.device("cpu")) > 0
        True
    """
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return int(psutil.Process().memory_info().rss) - _mapped_files()


def _mapped_files() -> int:
    """The bytes of mapped files in memory; 0 where the system does not tell."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("RssFile:")), 0)


def available_memory(device: torch.device) -> int:
    """Return the bytes that can still be allocated, within the limit of a container; PyTorch's cached blocks count.

    Example:
        >>> available_memory(torch.device("cpu")) > 0
        True
    """
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    free = int(psutil.virtual_memory().available)
    try:
        limit = int((_CGROUP / "memory.max").read_text())  # "max" if there is no limit
        used = int((_CGROUP / "memory.current").read_text())
        return min(free, limit - used + _reclaimable())
    except (OSError, ValueError):
        return free


def peak_memory(device: torch.device) -> int:
    """Return the largest number of bytes in use so far: by tensors on CUDA, by the whole process on the CPU.

    Example:
        >>> peak_memory(torch.device("cpu")) > 0
        True
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _reclaimable() -> int:
    """Return the bytes of page cache that the kernel frees on demand. ``memory.current`` counts them as used."""
    try:
        lines = map(str.split, (_CGROUP / "memory.stat").read_text().splitlines())
        return next((int(value) for key, value in lines if key == "inactive_file"), 0)
    except (OSError, ValueError):
        return 0
