"""Progress of long work: bars on a terminal, lines elsewhere. Neither stands still for a minute."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column

from sparsegpt_core.progress import Progress as ProgressHook
from sparsegpt_core.progress import Say

__all__ = ["progress_bars", "progress_lines", "reminders"]

_SECONDS_BETWEEN_LINES = 5.0
_SECONDS_OF_SILENCE = 20.0
_SHOWN: list[object] = []
_REMINDED: list[object] = []
_BAR_WIDTH = 20  # so that a line fits into 80 columns


@contextlib.contextmanager
def progress_bars(console: RichConsole) -> Iterator[ProgressHook]:
    """Return a hook that shows a bar for each stage, with the time left."""
    columns = (
        TextColumn("{task.description}", markup=False, table_column=Column(overflow="fold")),
        BarColumn(_BAR_WIDTH),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with _open(_SHOWN), Progress(*columns, console=console) as bars:
        shown = _Bars(bars)
        try:
            yield shown
        finally:
            shown.rest(False)


@contextlib.contextmanager
def progress_lines(say: Say) -> Iterator[ProgressHook]:
    """Return a hook that says a line at the start and the end of each stage, and every few seconds between them.

    A step that takes long is said every 20 seconds.
    """
    lines = _Lines(say)
    with _open(_SHOWN), _repeated(lines.remind, _SECONDS_OF_SILENCE):
        yield lines


@contextlib.contextmanager
def reminders(say: Say) -> Iterator[None]:
    """Say every 20 seconds that the work continues, while no progress is shown. Of nested calls the first says it."""
    if _REMINDED:
        yield
        return
    begun = time.monotonic()

    def remind() -> None:
        if not _SHOWN:
            say(f"working for {_clock(time.monotonic() - begun)} ...")

    with _open(_REMINDED), _repeated(remind, _SECONDS_OF_SILENCE):
        yield


@contextlib.contextmanager
def _open(displays: list[object]) -> Iterator[None]:
    """Count what is open in this process."""
    displays.append(object())
    try:
        yield
    finally:
        displays.pop()


@contextlib.contextmanager
def _repeated(call: Callable[[], None], seconds: float) -> Iterator[None]:
    """Call a function at intervals, in another thread."""
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(seconds):
            call()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


class _Bars:
    """One bar for every stage, and one that moves while there is none to fill."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, Any] = {}
        self._between: Any = None
        self.rest(True)

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage not in self._tasks or (done == 0 and self._is_done(stage)):
            self._tasks[stage] = self._bars.add_task(stage, total=total, completed=done)
        self._bars.update(self._tasks[stage], completed=done, total=total)
        self.rest(all(map(self._is_done, self._tasks)))

    def rest(self, is_between: bool) -> None:
        """Show the bar of the work between two stages, or remove it."""
        if is_between and self._between is None:
            self._between = self._bars.add_task("working", total=None)
        elif not is_between and self._between is not None:
            self._bars.remove_task(self._between)
            self._between = None

    def _is_done(self, stage: str) -> bool:
        return next(task.finished for task in self._bars.tasks if task.id == self._tasks[stage])


class _Lines:
    """Lines of progress."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._begun: dict[str, tuple[float, int]] = {}
        self._last = 0.0
        self._current = ""  # the stage and its step, until it is done

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        self._current = "" if done == total else f"{stage} {done}/{total}"
        if done == 0 or stage not in self._begun:
            # A resumed stage starts above 0.
            self._begun[stage] = (now, done)
            self._last = now
            self._say(f"{stage} {done}/{total} ..." if done else f"{stage} ...")
        elif done == total or now - self._last >= _SECONDS_BETWEEN_LINES:
            self._last = now
            started, first = self._begun[stage]
            elapsed = now - started
            left = "" if done == total else f", about {_clock(elapsed / max(done - first, 1) * (total - done))} left"
            self._say(f"{stage} {done}/{total} in {_clock(elapsed)}{left}")

    def remind(self) -> None:
        """Say that the work continues, unless a line was said a moment ago."""
        now = time.monotonic()
        self._last = self._last or now
        silence = now - self._last
        if silence >= _SECONDS_BETWEEN_LINES:
            self._say(f"{self._current or 'working'}, {_clock(silence)} since the last line ...")


def _clock(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
