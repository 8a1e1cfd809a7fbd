"""The folder of a run: filled at once, with a manifest of what is in it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from sparsegpt_core import __version__
from sparsegpt_core.errors import InputError
from sparsegpt_core.files import MANIFEST, sha256, write_json

__all__ = ["staged", "write_manifest"]


@contextmanager
def staged(out: Path, unfinished: Path | None) -> Iterator[Path]:
    """Give a folder beside ``out`` and move its files into ``out`` when all went well.

    Raises:
        InputError: ``out`` is a file, or cannot be written.
    """
    if (out.exists() or out.is_symlink()) and not out.is_dir():
        raise InputError(f"{out} is not a folder", "Give --out a folder, or a name that is free.")
    folder = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if unfinished:
            folder = unfinished / "files"
            folder.mkdir(parents=True, exist_ok=True)
        else:
            folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
        yield folder
        out.mkdir(exist_ok=True)
        # The manifest first: a file of an earlier run beside it is refused, should this be cut off.
        for file in sorted(folder.iterdir(), key=lambda path: path.name != MANIFEST):
            file.replace(out / file.name)
    except OSError as error:
        raise InputError(
            f"cannot write to {out}: {error.strerror or error}", "Give a folder you may write to, with space left."
        ) from error
    finally:
        if folder is not None and not unfinished:
            shutil.rmtree(folder, ignore_errors=True)


def write_manifest(folder: Path, versions: Mapping[str, str | None]) -> None:
    """Write the digests and sizes of a folder's files, and the versions that made them."""
    files = {
        path.name: {"sha256": sha256(path), "bytes": path.stat().st_size}
        for path in sorted(folder.iterdir())
        if path.suffix in (".onnx", ".data", ".safetensors", ".json")
    }
    write_json(folder / MANIFEST, {"tool_version": __version__, "versions": versions, "files": files})
