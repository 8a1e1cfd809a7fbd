"""What ``torchrun`` tells a process through its environment. Loads no torch."""

from __future__ import annotations

import os

__all__ = ["local_rank", "rank", "world_size"]


def world_size() -> int:
    """Return how many processes work together; 1 without ``torchrun``."""
    return int(os.environ.get("WORLD_SIZE", 1))


def rank() -> int:
    """Return which of them this process is, from 0."""
    return int(os.environ.get("RANK", 0)) if world_size() > 1 else 0


def local_rank() -> int:
    """Return which of those on this machine this process is, from 0."""
    return int(os.environ.get("LOCAL_RANK", 0)) if world_size() > 1 else 0
