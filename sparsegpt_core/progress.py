"""How long work tells its caller where it is, without knowing who listens."""

from __future__ import annotations

from typing import Callable

__all__ = ["Progress", "silent"]

Progress = Callable[[str, int, int], None]
"""Called as ``progress(stage, done, total)``: once with ``done=0``, then after every step."""


def silent(stage: str, done: int, total: int) -> None:
    """Ignore progress: the default of every library function."""
