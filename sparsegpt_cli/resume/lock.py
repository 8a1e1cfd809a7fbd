"""One process at a time in a folder, or at a file."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from sparsegpt_core.errors import InputError

__all__ = ["locked", "locked_file"]


@contextlib.contextmanager
def locked(folder: Path, what: str) -> Iterator[None]:
    """Keep others out of a folder, which is made where it is not there; the lock dies with the process.

    Args:
        folder: Where ``.lock`` is kept.
        what: What the others do, for the message: a run, a sweep.

    Raises:
        InputError: Another one is in it, or it cannot be written.
    """
    with _opened(folder / ".lock", folder) as file:
        _take(file, folder, what)
        yield


@contextlib.contextmanager
def locked_file(path: Path, what: str) -> Iterator[None]:
    """Keep others from writing the same file meanwhile; the lock dies with the process.

    Args:
        path: The file, which need not be there; its folder is made.
        what: What the others do, for the message: a training.

    Raises:
        InputError: Another one writes it, or its folder cannot be written.
    """
    lock = path.with_name(f".{path.name}.lock")
    with _opened(lock, path.parent) as file:
        _take(file, path, what)
        # Whoever had it may have removed it since it was opened.
        if not (lock.exists() and os.path.samestat(os.fstat(file.fileno()), lock.stat())):
            raise _taken(path, what)
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


@contextlib.contextmanager
def _opened(lock: Path, folder: Path) -> Iterator[TextIO]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = lock.open("a")
    except OSError as error:
        raise InputError(
            f"cannot write to {folder}: {error.strerror or error}", "Give --out a folder you may write to."
        ) from error
    with file:
        yield file


def _take(file: TextIO, target: Path, what: str) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _taken(target, what) from None


def _taken(target: Path, what: str) -> InputError:
    return InputError(f"another {what} writes to {target}", "Wait for it, or give another --out.")
