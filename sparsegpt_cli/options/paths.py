"""Output paths and their checks, before any work is done."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from sparsegpt_core.errors import InputError

__all__ = ["Force", "OutFolder", "may_replace", "require_free", "require_suffix"]

Input = Path | str | None


def _folder(text: str | Path) -> Path:
    """Return a path with a name: unfinished work is kept next to the folder, under its name."""
    if not str(text).strip():
        raise typer.BadParameter("the path is empty")
    path = Path(text)
    named = path if path.name not in ("", "..") else path.resolve()
    if not named.name:
        raise typer.BadParameter(f"{named} is the root of the file system")
    return named


OutFolder = Annotated[Path, typer.Option(parser=_folder, metavar="PATH", help="Folder to write to.")]
"""The ``--out`` of commands that write a folder."""


Force = Annotated[bool, typer.Option("--force", help="Replace files that exist.")]
"""The option of commands that write files."""


def may_replace(out: Path, force: bool) -> bool:
    """Return whether files at ``out`` may be replaced: with ``--force``, or to finish a run that was interrupted.

    Example:
        >>> may_replace(Path("sparse.safetensors"), force=False)
        False
    """
    return force or Path(f"{out}.unfinished").exists()


def require_suffix(path: Path, suffix: str, *inputs: Input, force: bool) -> None:
    """Refuse an output path with another suffix, or one that :func:`require_free` refuses.

    Args:
        path: The file to write.
        suffix: The only suffix allowed, such as ``.onnx``.
        inputs: As for :func:`require_free`.
        force: As for :func:`require_free`.

    Raises:
        InputError: The path has another suffix, or :func:`require_free` refuses it.

    Example:
        >>> require_suffix(Path("model.pt"), ".onnx", force=False)
        Traceback (most recent call last):
        sparsegpt_core.errors.InputError: model.pt does not end in .onnx
    """
    if path.suffix != suffix:
        example = path.with_suffix(suffix) if path.name else f"out{suffix}"
        raise InputError(f"{path} does not end in {suffix}", f"For example {example}.")
    require_free(path, *inputs, force=force)


def require_free(path: Path, *inputs: Input, force: bool) -> None:
    """Refuse an output path that is a folder, one of the command's inputs, or a file that exists.

    Args:
        path: The file to write.
        inputs: Files that the command reads, and data sets as ``--data`` names them; None where one is not given.
        force: Whether a file that exists may be replaced.

    Raises:
        InputError: The path is a folder, one of the inputs, perhaps through a link, or exists.

    Example:
        >>> require_free(Path("images.npz"), None, "npz:images.npz", force=True)
        Traceback (most recent call last):
        sparsegpt_core.errors.InputError: images.npz would be overwritten
    """
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a directory", "Give the path of a file.")
    files = (Path(each.partition(":")[2]).expanduser() if isinstance(each, str) else each for each in inputs if each)
    if os.path.realpath(path) in map(os.path.realpath, files):
        raise InputError(f"{path} would be overwritten", "Give another output path: inputs are never overwritten.")
    if path.exists() and not force:
        raise InputError(f"{path} exists", "Give another output path, or --force to replace it.")
