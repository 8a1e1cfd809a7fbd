"""Progress, warnings and times of long work, for any caller."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from typing import Callable

__all__ = ["WARNINGS", "Progress", "Say", "silent", "timed"]

WARNINGS = logging.getLogger("sparsegpt_core.warnings")
"""Takes the warnings of code that cannot return them; the command line shows them."""

Progress = Callable[[str, int, int], None]
"""Called as ``progress(stage, done, total)``: once with ``done=0``, then after every step."""

Say = Callable[[str], None]
"""Called with sentences for the user."""


def silent(stage: str, done: int, total: int) -> None:
    """Ignore progress: the default of every library function."""


@contextlib.contextmanager
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Add the wall-clock seconds of the block to ``seconds[stage]``, also if the block fails.

    Example:
        >>> seconds: dict[str, float] = {}
        >>> with timed(seconds, "solve"):
        ...     pass
        >>> [*seconds]
        ['solve']
    """
    start = time.perf_counter()
    try:
        yield
    finally:
        seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - start
