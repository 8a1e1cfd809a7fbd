"""The output of a command: results on standard output, everything else on standard error."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from sparsegpt_cli.messages import with_flags
from sparsegpt_cli.terminal.progress import progress_bars, progress_lines, reminders
from sparsegpt_cli.terminal.streams import StreamConsole, write_out
from sparsegpt_core.errors import SparseGPTError
from sparsegpt_core.progress import Progress as ProgressHook
from sparsegpt_core.progress import silent
from sparsegpt_core.torchrun import rank

__all__ = ["Console", "logged_warnings", "report_error"]


class Console:
    """The output of a command, and its seed. Under ``torchrun`` only the first process shows anything.

    Args:
        as_json: Print one JSON object on standard output, and nothing else.
        quiet: Show no progress and no messages, only errors, warnings and the result.
        seed: Seed of the command's random numbers.
    """

    def __init__(self, as_json: bool = False, quiet: bool = False, seed: int = 0) -> None:
        self._is_mute = rank() > 0
        self.as_json, self.quiet, self.seed = as_json, quiet or self._is_mute, seed
        self._out = _rich(sys.stdout)
        self._err = _rich(sys.stderr)

    def say(self, message: str) -> None:
        """Show a message on standard error."""
        if not self.quiet:
            self._err.print(escape(with_flags(message)), highlight=False, soft_wrap=True)

    def warn(self, message: str) -> None:
        """Show a warning on standard error, even when quiet."""
        if not self._is_mute:
            self._err.print(f"[yellow]warning:[/] {escape(with_flags(message))}", highlight=False, soft_wrap=True)

    def error(self, message: str) -> None:
        """Show on standard error why a check failed."""
        self._err.print(f"[bold red]error:[/] {escape(with_flags(message))}", highlight=False, soft_wrap=True)

    def result(self, content: dict[str, Any], lines: Sequence[str | Table]) -> None:
        """Show a result: ``content`` as JSON, or ``lines`` as text."""
        if self._is_mute:
            return
        if self.as_json:
            write_out(json.dumps(content, indent=2, allow_nan=False) + "\n")
            return
        for line in lines:
            if isinstance(line, Table):
                _wide_enough(self._out, line).print(line)
            else:
                self._out.print(Text(line), soft_wrap=not _wraps_at_words(self._out, line))

    def working(self) -> contextlib.AbstractContextManager[None]:
        """Return a context in which the command says now and then that it works, while it shows no progress."""
        return contextlib.nullcontext() if self.quiet else reminders(self.say)

    @contextlib.contextmanager
    def progress(self) -> Iterator[ProgressHook]:
        """Return a progress hook: on a terminal bars with the time left, elsewhere lines."""
        if self.quiet:
            yield silent
        elif self._err.is_terminal:
            with progress_bars(self._err) as bars:
                yield bars
        else:
            with progress_lines(self.say) as lines:
                yield lines


def _rich(stream: Any) -> StreamConsole:
    # Rich would show `mine:train` as a picture of a train.
    console = StreamConsole(file=stream, emoji=False)
    # Without a terminal the width is not known; Rich would squeeze tables into 80 columns.
    return console if console.is_terminal else StreamConsole(file=stream, width=140, emoji=False)


def _wraps_at_words(console: StreamConsole, line: str) -> bool:
    """Return whether a line is a sentence on a terminal; commands and paths stay whole, so that they can be copied."""
    return console.is_terminal and line.endswith(".") and max(map(len, line.split())) <= console.width


def _wide_enough(console: StreamConsole, table: Table) -> StreamConsole:
    """Return the console, or one that is as wide as the table has to be: the terminal then wraps its lines."""
    width = table.min_width or 0
    return console if width <= console.width else StreamConsole(file=console.file, width=width, emoji=False)


@contextlib.contextmanager
def logged_warnings(logger: logging.Logger) -> Iterator[None]:
    """Show each warning that reaches a logger inside the context once.

    Example:
        >>> with logged_warnings(logging.getLogger("example")):
        ...     logging.getLogger("example").warning("the disk is nearly full")  # on standard error
    """
    handler = _Shown(logging.WARNING)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _Shown(logging.Handler):
    """A handler that shows each message once."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self._messages: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if message not in self._messages:
            self._messages.add(message)
            Console().warn(message)


def report_error(error: SparseGPTError, as_json: bool) -> None:
    """Show an error and its hint in one line on standard error; with ``as_json`` also as JSON on standard output."""
    message, hint = with_flags(str(error)), with_flags(error.hint)
    if as_json:
        write_out(json.dumps({"error": message, "hint": hint}) + "\n")
    console = _rich(sys.stderr)
    line = f"[bold red]error:[/] {escape(message.rstrip('.'))}. {escape(hint)}".rstrip()
    console.print(line, highlight=False, soft_wrap=True)
