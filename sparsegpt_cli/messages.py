"""The messages and the progress of a job, settings spelled as flags, and command lines."""

from __future__ import annotations

import re
import shlex
from collections.abc import Hashable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from sparsegpt_core.progress import Progress
from sparsegpt_core.progress import silent as ignore_progress

__all__ = ["SILENT", "Messages", "command_line", "is_next_step", "next_step", "with_flags"]

_NEXT = "next: "
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


def next_step(*arguments: object) -> str:
    """Return the last line of a command's result: the command that is useful next.

    Example:
        >>> next_step("report", "out")
        'next: sparsegpt-trt report out'
    """
    return f"{_NEXT}{command_line(*arguments)}"


def is_next_step(line: object) -> bool:
    """Return whether a line of a result is that of :func:`next_step`.

    Example:
        >>> is_next_step(next_step("demo")), is_next_step("report: out/report.html")
        (True, False)
    """
    return isinstance(line, str) and line.startswith(_NEXT)


def _flag(name: str, value: str | None) -> str:
    flag = name.replace("_", "-")
    if value == "False":
        return f"--no-{flag}"
    return f"--{flag}" if value in (None, "True") else f"--{flag} {value}"
