"""Locks that one process holds at a time, and that end with the process."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

__all__ = ["take_lock"]


def take_lock(handle: int, path: Path) -> bool:
    """Lock an open file or folder, unless another process holds its lock. The lock ends when the handle is closed.

    Args:
        handle: The file descriptor.
        path: The path that was opened.

    Returns:
        Whether this process holds the lock now.

    Example:
        >>> with Path("run.lock").open("a") as first, Path("run.lock").open("a") as second:
        ...     take_lock(first.fileno(), Path("run.lock")), take_lock(second.fileno(), Path("run.lock"))
        (True, False)
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The last holder may have removed the path after it was opened here. Nobody else would see such a lock.
        return os.path.samestat(os.fstat(handle), path.stat())
    except (BlockingIOError, FileNotFoundError):
        return False
