"""How much memory is used, is free, and was used at most."""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path

import psutil
import torch

from sparsegpt_core.errors import InputError

__all__ = ["available_memory", "parse_size", "peak_memory", "used_memory"]

_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_CGROUP = Path("/sys/fs/cgroup")


def parse_size(text: str) -> int:
    """Return the bytes that ``8GiB``, ``8G``, ``500 MB`` or ``1e9`` mean; units are powers of 1024.

    Raises:
        InputError: The text is no size.
    """
    match = re.fullmatch(r"\s*([0-9.]+(?:e[0-9]+)?)\s*([kmgt]?)(?:i?b)?\s*", text.lower())
    try:
        size = int(float(match[1]) * _UNITS[match[2]]) if match else 0
    except (ValueError, OverflowError):
        size = 0
    if size <= 0:
        raise InputError(f"'{text}' is no size of memory", "For example 8GiB or 500MB.")
    return size


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
