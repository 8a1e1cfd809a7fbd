"""Where a job's messages and its progress go: a protocol that a terminal, a notebook or a log can implement."""

from __future__ import annotations

from collections.abc import Hashable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from sparsegpt_core.progress import Progress
from sparsegpt_core.progress import silent as ignore_progress

__all__ = ["SILENT", "Messages"]


class Messages(Hashable, Protocol):
    """What a job tells its caller. :class:`~sparsegpt_cli.terminal.Console` shows it on a terminal."""

    def say(self, message: str) -> None:
        """Take a message that is good to know."""

    def warn(self, message: str) -> None:
        """Take a warning."""

    def progress(self) -> AbstractContextManager[Progress]:
        """Return a context whose value takes the progress of long work."""


class _Silent:
    """Ignores everything."""

    def say(self, message: str) -> None:
        """Ignore a message."""

    def warn(self, message: str) -> None:
        """Ignore a warning."""

    def progress(self) -> AbstractContextManager[Progress]:
        """Return a context that ignores progress."""
        return nullcontext(ignore_progress)


SILENT: Messages = _Silent()
"""Takes messages and shows none: for notebooks and tests."""
