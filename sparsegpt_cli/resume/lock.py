"""Locks that let one process at a time write to a folder or to a file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from sparsegpt_core.errors import InputError
from sparsegpt_core.files import take_lock

__all__ = ["locked", "locked_file"]


@contextlib.contextmanager
def locked(folder: Path, what: str) -> Iterator[None]:
    """Lock a folder; the lock ends with the process.

    Args:
        folder: The folder, made if it does not exist. The lock is the file ``.lock`` in it.
        what: What holds such locks, for the message: "run" or "sweep".

    Raises:
        InputError: Another process holds the lock, or the folder cannot be written.

    Example:
        >>> with locked(Path("run"), "run"), locked(Path("run"), "run"):
        ...     pass
        Traceback (most recent call last):
        sparsegpt_core.errors.InputError: another run writes to run
    """
    with _held(folder / ".lock", folder, folder, what):
        yield


@contextlib.contextmanager
def locked_file(path: Path, what: str) -> Iterator[None]:
    """Lock a file that is about to be written; the lock ends with the process.

    Args:
        path: The file, which need not exist. Its folder is made.
        what: What holds such locks, for the message: "training".

    Raises:
        InputError: Another process holds the lock, or the folder cannot be written.

    Example:
        >>> with locked_file(Path("dense.safetensors"), "training"):
        ...     Path(".dense.safetensors.lock").exists()
        True
        >>> Path(".dense.safetensors.lock").exists()
        False
    """
    lock = path.with_name(f".{path.name}.lock")
    with _held(lock, path.parent, path, what):
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


@contextlib.contextmanager
def _held(lock: Path, folder: Path, target: Path, what: str) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = lock.open("a")
    except OSError as error:
        raise InputError(
            f"cannot write to {folder}: {error.strerror or error}", "Give --out a folder you may write to."
        ) from error
    with file:
        if not take_lock(file.fileno(), lock):
            raise InputError(f"another {what} writes to {target}", "Wait for it, or give another --out.")
        yield
