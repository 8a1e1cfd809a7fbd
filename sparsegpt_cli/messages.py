"""The messages and the progress of a job, settings spelled as flags, and command lines."""

from __future__ import annotations

import re
import shlex
from collections.abc import Hashable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from sparsegpt_core.progress import Progress
from sparsegpt_core.progress import silent as ignore_progress

__all__ = ["SILENT", "Messages", "command_line", "with_flags"]

_SETTING = re.compile(r"`([a-z][a-z0-9_]*)(?:=([^`]*))?`")


class Messages(Hashable, Protocol):
    """Takes the messages and the progress of a job, as :class:`~sparsegpt_cli.terminal.Console` does."""

    def say(self, message: str) -> None:
        """Take a message."""

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
"""Ignores all messages: for notebooks and tests."""


def with_flags(text: str) -> str:
    """Spell the settings that a library names in backticks as the flags of a command.

    Example:
        >>> with_flags("Raise `memory_limit`, or use `permute=False` or `mask=admm`.")
        'Raise --memory-limit, or use --no-permute or --mask admm.'
    """
    return _SETTING.sub(lambda found: _flag(found[1], found[2]), text)


def command_line(*arguments: object) -> str:
    """Return a command of this program as a line of shell.

    Example:
        >>> from pathlib import Path
        >>> command_line("verify", Path("my net.onnx"))
        "sparsegpt-trt verify 'my net.onnx'"
    """
    return shlex.join(["sparsegpt-trt", *map(str, arguments)])


def _flag(name: str, value: str | None) -> str:
    flag = name.replace("_", "-")
    if value == "False":
        return f"--no-{flag}"
    return f"--{flag}" if value in (None, "True") else f"--{flag} {value}"
