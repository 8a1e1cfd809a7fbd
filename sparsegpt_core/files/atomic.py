"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sparsegpt_core.errors import InputError
from sparsegpt_core.files.staging import staged_file, writing

__all__ = ["atomic_path", "read_json", "write_bytes", "write_json", "write_text"]

_MAX_JSON_BYTES = 64 << 20  # json.loads needs about 20 times as much memory


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to; move the file to ``path`` at the end, or delete it after an error.

    Args:
        path: The final place of the file. An older file stays there until the new one is complete.

    Raises:
        InputError: ``path`` is a directory, the folder cannot be written, or the disk is full. An OSError of the block
            that names another file, for example of a failed read, is not changed.

    Example:
        >>> with atomic_path(Path("table.csv")) as temporary:
        ...     _ = temporary.write_text("layer,loss")
        >>> Path("table.csv").read_text()
        'layer,loss'
    """
    with staged_file(path) as temporary:
        with writing(path):
            temporary.touch()
        try:
            yield temporary
        except OSError as error:
            named = [str(name) for name in (error.filename, error.filename2) if name is not None]
            if named and str(temporary) not in named:
                raise
            with writing(path):
                raise
        with writing(path):
            with temporary.open("rb+") as stream:
                os.fsync(stream.fileno())
            temporary.replace(path)


def write_bytes(path: Path, content: bytes) -> None:
    """Write bytes to a file atomically.

    Raises:
        InputError: The file cannot be written.

    Example:
        >>> write_bytes(Path("model.bin"), b"weights")
        >>> Path("model.bin").read_bytes()
        b'weights'
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write text to a file atomically, as UTF-8.

    Raises:
        InputError: The file cannot be written.

    Example:
        >>> write_text(Path("log.txt"), "2:4")
        >>> Path("log.txt").read_text()
        '2:4'
    """
    write_bytes(path, content.encode())


def write_json(path: Path, content: Any) -> None:
    """Write JSON to a file atomically, indented.

    Raises:
        InputError: The file cannot be written.
        ValueError: The content contains NaN or infinity, which JSON cannot express.

    Example:
        >>> write_json(Path("result.json"), {"loss": 0.5})
        >>> read_json(Path("result.json"))
        {'loss': 0.5}
    """
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: The file is missing, unreadable, larger than 64 MiB, or not JSON.

    Example:
        >>> write_text(Path("result.json"), '{"loss": 0.5}')
        >>> read_json(Path("result.json"))
        {'loss': 0.5}
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(_MAX_JSON_BYTES + 1)
        if len(content) > _MAX_JSON_BYTES:
            raise InputError(
                f"{path} is larger than {_MAX_JSON_BYTES >> 20} MiB", "Give a file that this program wrote."
            )
        return json.loads(content.decode())
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not a JSON file: {error}") from error
