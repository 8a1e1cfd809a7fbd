"""Output paths that may be written."""

from __future__ import annotations

import os
from pathlib import Path

from sparsegpt_core.errors import InputError

__all__ = ["require_free", "require_suffix"]


def require_suffix(path: Path, suffix: str, *inputs: Path | None) -> None:
    """Refuse an output path with another ending, or that :func:`require_free` refuses.

    Raises:
        InputError: The path ends otherwise, is a directory, or one of the inputs.
    """
    if path.suffix != suffix:
        raise InputError(f"{path} does not end in {suffix}", f"For example {path.with_suffix(suffix)}.")
    require_free(path, *inputs)


def require_free(path: Path, *inputs: Path | None) -> None:
    """Refuse, before any work is done, an output path that cannot be written or that is read.

    Raises:
        InputError: The path is a directory, or one of the inputs under whatever name.
    """
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a directory", "Give the path of a file.")
    if os.path.realpath(path) in {os.path.realpath(each) for each in inputs if each}:
        raise InputError(f"{path} would be overwritten", "Give --out another name: inputs are kept.")
