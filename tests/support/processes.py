"""Helpers that several test files share."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path


def square(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does where memory is short
    return number * number


def die_between(number: int) -> int:
    """Give a result and die only then, as between two items."""
    if number == 0:
        import threading

        threading.Timer(0.2, os._exit, [1]).start()
    return os.getpid()


def fail(number: int) -> int:
    raise LookupError(f"no {number}")


def sleep_in(folder: str) -> None:
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(600)
