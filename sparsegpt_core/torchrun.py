"""The place of a process among those that ``torchrun`` started, from the environment. Loads no torch."""

from __future__ import annotations

import os

__all__ = ["local_rank", "rank", "world_size"]


def world_size() -> int:
    """Return the number of processes; 1 without ``torchrun``."""
    return int(os.environ.get("WORLD_SIZE", 1))


def rank() -> int:
    """Return the index of this process among all, from 0."""
    return int(os.environ.get("RANK", 0)) if world_size() > 1 else 0


def local_rank() -> int:
    """Return the index of this process among those on this machine, from 0."""
    return int(os.environ.get("LOCAL_RANK", 0)) if world_size() > 1 else 0
