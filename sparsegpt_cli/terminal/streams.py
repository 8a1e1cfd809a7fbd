"""Standard streams that never end a command: a reader that closes its pipe, a terminal without UTF-8."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any

from rich.console import Console as RichConsole

__all__ = ["StreamConsole", "robust_streams", "write_out"]

_ASCII = {"…": "...", "×": "x", "–": "-", "—": "-", "→": "->", "±": "+-", "µ": "u", "·": "*", "≤": "<=", "≥": ">="}


def _to_ascii(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_ASCII.get(character, "?") for character in error.object[error.start : error.end]), error.end


codecs.register_error("sparsegpt_ascii", _to_ascii)


class StreamConsole(RichConsole):
    """Rich's console, whose reader may close the pipe. Rich itself would exit with status 1."""

    def on_broken_pipe(self) -> None:
        """Discard this and all later output."""
        _discard(self.file)


@contextlib.contextmanager
def robust_streams() -> Iterator[None]:
    """Replace characters that a stream's encoding lacks, and discard the output that a closed pipe does not take.

    Example:
        >>> with robust_streams():
        ...     print("1.12×")
        1.12×
    """
    streams = [stream for stream in (sys.stdout, sys.stderr) if isinstance(stream, io.TextIOWrapper)]
    for stream in streams:
        stream.reconfigure(errors="sparsegpt_ascii")
    try:
        yield
    finally:
        for stream in streams:
            try:
                stream.flush()
            except BrokenPipeError:
                _discard(stream)  # Python would fail when it flushes the stream at its exit


def write_out(text: str) -> None:
    """Write to standard output; a closed pipe discards it.

    Example:
        >>> write_out("done")
        done
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        _discard(sys.stdout)


def _discard(stream: Any) -> None:
    """Connect a stream to the null device."""
    device = os.open(os.devnull, os.O_WRONLY)
    os.dup2(device, stream.fileno())
    os.close(device)
