"""Temporary places next to a path, for output that moves there once it is whole."""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sparsegpt_core.errors import InputError
from sparsegpt_core.files.lock import take_lock

__all__ = ["remove_abandoned", "staged_file", "staged_folder", "writing"]

_SUFFIX = ".partial"


@contextlib.contextmanager
def staged_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder next to ``path``, and remove it at the end. The caller moves its finished output.

    Folders of the same path that killed processes left are removed too.

    Args:
        path: The final place of the output; it need not exist.

    Raises:
        InputError: The folder cannot be made.

    Example:
        >>> with staged_folder(Path("run")) as folder:
        ...     _ = (folder / "model.onnx").write_bytes(b"weights")
        ...     _ = folder.rename("run")
        >>> [path.name for path in Path("run").iterdir()]
        ['model.onnx']
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(path.parent, path.name)
        folder = Path(tempfile.mkdtemp(_SUFFIX, f".{path.name}.", path.parent))
    try:
        with _locked(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def staged_file(path: Path) -> Iterator[Path]:
    """Give a path of the same name in a folder of :func:`staged_folder`. The caller writes there and moves the file.

    Args:
        path: The final place of the file; it need not exist.

    Raises:
        InputError: ``path`` is a directory, or the folder cannot be made.

    Example:
        >>> with staged_file(Path("weights.bin")) as staged:
        ...     _ = staged.write_bytes(b"weights")
        ...     _ = staged.replace("weights.bin")
        >>> Path("weights.bin").read_bytes()
        b'weights'
    """
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a directory", "Give the path of a file.")
    with staged_folder(path) as folder:
        yield folder / path.name


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Report an OSError of the block as a failure to write ``path``. The block must only write.

    Raises:
        InputError: Names the path and the reason.

    Example:
        >>> with writing(Path("/proc/none")):
        ...     Path("/proc/none").write_text("text")
        Traceback (most recent call last):
        sparsegpt_core.errors.InputError: cannot write /proc/none: No such file or directory
    """
    try:
        yield
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror or error}", "Give a folder you may write to, with space left."
        ) from error


def remove_abandoned(folder: Path, name: str = "") -> None:
    """Remove the temporary folders that killed processes left in a folder; those of running processes stay.

    Args:
        folder: Where to look.
        name: The name that the temporary folders were for; empty for all names.

    Example:
        >>> Path(".model.onnx.x7.partial").mkdir()
        >>> remove_abandoned(Path(), "model.onnx")
        >>> Path(".model.onnx.x7.partial").exists()
        False
    """
    for left in folder.glob(f".{glob.escape(name) or '*'}.*{_SUFFIX}"):
        with _locked(left) as abandoned:
            if abandoned:
                shutil.rmtree(left, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Lock a folder: the lock shows that its process runs. Give False if it cannot be locked."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        yield False
        return
    try:
        try:
            locked = take_lock(handle, folder)
        except OSError:  # a file system without locks
            locked = False
        yield locked
    finally:
        os.close(handle)
