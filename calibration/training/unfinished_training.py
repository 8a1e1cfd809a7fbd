"""The state of a training on disk: written at intervals and when interrupted, removed when the training is finished."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from sparsegpt_core.errors import DataError
from sparsegpt_core.files import KeyedStore, atomic_path, changed_names
from sparsegpt_core.interrupts import defer_interrupts

__all__ = ["Unfinished"]

_MIN_SECONDS = 10.0  # between two writes
_MIN_PAUSE_PER_WRITE = 4  # the pause after a write is at least this many times as long as the write
_NAME = "training"
_FILES = ("state-0.pt", "state-1.pt")  # used in turn: one is whole while the other is written

State = dict[str, Any]


class Unfinished:
    """Where the state of a training is kept until the training is finished.

    Args:
        folder: The folder of the state.
        key: Everything that the training depends on, as JSON can express it. A state is used only under the same key.
        seconds: The minimum time between two writes.
    """

    def __init__(self, folder: Path, key: Mapping[str, Any], seconds: float = _MIN_SECONDS) -> None:
        self._folder, self._store, self._key = folder, KeyedStore(folder), key
        self._file = _FILES[1]  # the state that is on disk
        self._seconds = self._pause = seconds
        self._last = time.monotonic()

    def load(self) -> tuple[State | None, tuple[str, ...]]:
        """Return the state, None if there is none of the same key, and the names in the key that have changed.

        Raises:
            DataError: A file is damaged.
        """
        if self._folder.is_file():
            self._folder.unlink()  # an earlier version kept its state in a file
        entry = self._store.entry(_NAME)
        if entry is None:
            if self._store.path(_NAME).exists():
                raise DataError(f"the unfinished training {self._folder} is damaged", "Remove it to start again.")
            return None, ()
        (self._file,) = entry.files
        changed = tuple(changed_names(entry.identity, self._key))
        if changed:
            return None, changed
        return torch.load(self._folder / self._file, map_location="cpu", weights_only=True), ()

    @property
    def has_steps(self) -> bool:
        """Whether a state after one step or more is kept, of any key."""
        return self._store.entry(_NAME) is not None

    def once(self, name: str, make: Callable[[], State]) -> State:
        """Return what an interrupted training of the same key has made before its first step, else make and keep it.

        Args:
            name: What is made.
            make: Makes it, as JSON can express it.

        Raises:
            InputError: A file cannot be written.
        """
        entry = self._store.read(name, self._key)
        if entry is not None:
            return dict(entry.content)
        content = make()
        self._store.write(name, self._key, content)
        return content

    def keep(self, state: Callable[[], State]) -> None:
        """Write the state, unless the last write was too recent.

        Raises:
            InputError: A file cannot be written.
        """
        if time.monotonic() - self._last >= self._pause:
            self._write(state)

    @contextlib.contextmanager
    def kept_on_interrupt(self, state: Callable[[], State]) -> Iterator[None]:
        """Write the state if Ctrl-C or SIGTERM ends the block. The state must be whole wherever they can do so.

        Raises:
            InputError: A file cannot be written.
        """
        try:
            yield
        except KeyboardInterrupt:
            with defer_interrupts():
                self._write(state)
            raise

    def _write(self, state: Callable[[], State]) -> None:
        start = time.monotonic()
        file = _FILES[1 - _FILES.index(self._file)]
        with atomic_path(self._folder / file) as temporary:
            torch.save(state(), temporary)
        self._store.write(_NAME, self._key, {}, [file])
        self._file = file
        self._last = time.monotonic()
        self._pause = max(self._seconds, _MIN_PAUSE_PER_WRITE * (self._last - start))

    def remove(self) -> None:
        """Remove the state."""
        shutil.rmtree(self._folder, ignore_errors=True)
