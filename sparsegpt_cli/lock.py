"""One process at a time in a folder."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from sparsegpt_core.errors import InputError

__all__ = ["locked"]


@contextlib.contextmanager
def locked(folder: Path, what: str) -> Iterator[None]:
    """Keep others out of a folder, which is made where it is not there; the lock dies with the process.

    Args:
        folder: Where ``.lock`` is kept.
        what: What the others do, for the message: a run, a sweep.

    Raises:
        InputError: Another one is in it, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("a")
    except OSError as error:
        raise InputError(
            f"cannot write to {folder}: {error.strerror or error}", "Give --out a folder you may write to."
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"another {what} writes to {folder}", "Wait for it, or give another --out.") from None
        yield
