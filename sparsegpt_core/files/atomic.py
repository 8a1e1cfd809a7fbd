"""Files that are either wholly there or not there at all, and their hashes."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sparsegpt_core.errors import InputError

__all__ = ["atomic_path", "partial_folder", "read_json", "sha256", "write_bytes", "write_json", "write_text"]

_PARTIAL = ".partial"
_MOST_JSON = 64 << 20  # bytes, of which Python makes some twenty times as many


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path in the same folder; rename it to ``path`` on success, delete it on failure.

    Args:
        path: Where the finished file shall be; an older file there stays until the new one is complete.

    Raises:
        InputError: The folder cannot be made or written, or the disk is full.
    """
    with partial_folder(path) as folder:
        temporary = folder / path.name
        temporary.touch()
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)


@contextlib.contextmanager
def partial_folder(path: Path) -> Iterator[Path]:
    """Give a folder beside ``path`` for what is to become it; it goes in the end, as do those that a kill has left.

    Args:
        path: A file, which need not be there.

    Raises:
        InputError: The folder cannot be made or written, or the disk is full, within the context too.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise InputError(f"cannot write {path}: it is a directory", "Give the path of a file.")
        for left in path.parent.glob(f".{glob.escape(path.name)}.*{_PARTIAL}"):
            with _held(left) as mine:
                if mine:
                    shutil.rmtree(left, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(_PARTIAL, f".{path.name}.", path.parent))
        try:
            with _held(folder):
                yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror or error}", "Give a folder you may write to, with space left."
        ) from error


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[bool]:
    """Lock a folder, if nobody has: it says that its process lives, and dies with it."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        yield False
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        held = True
    except OSError:
        held = False
    try:
        yield held
    finally:
        os.close(handle)


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write ``content`` to ``path`` atomically, as UTF-8."""
    write_bytes(path, content.encode())


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` to ``path`` atomically, as indented JSON without NaN."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: The file is missing, unreadable, too large, or not JSON.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(_MOST_JSON + 1)
        if len(content) > _MOST_JSON:
            raise InputError(f"{path} is larger than {_MOST_JSON >> 20} MiB", "Give a file that this program wrote.")
        return json.loads(content.decode())
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not a JSON file: {error}") from error


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits.

    Raises:
        InputError: The file is missing or unreadable.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            for chunk in iter(lambda: stream.read(1 << 20), b""):
                digest.update(chunk)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    return digest.hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
