"""The output folder of a run: filled in one step, with a manifest of its files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from sparsegpt_core import __version__
from sparsegpt_core.errors import InputError
from sparsegpt_core.files import MANIFEST, file_record, staged_folder, write_json, writing

__all__ = ["staged", "write_manifest"]

_SUFFIXES = (".onnx", ".data", ".safetensors", ".json")


@contextmanager
def staged(out: Path, unfinished: Path | None) -> Iterator[Path]:
    """Give a folder to write to, and move its files to ``out`` if the block succeeds.

    Args:
        out: The output folder, made if it does not exist.
        unfinished: The folder of the unfinished run, which keeps the files after an error; None keeps nothing.

    Raises:
        InputError: ``out`` is a file, or cannot be written.

    Example:
        >>> with staged(Path("run"), None) as folder:
        ...     _ = (folder / "sparse.onnx").write_bytes(b"graph")
        >>> [path.name for path in Path("run").iterdir()]
        ['sparse.onnx']
    """
    if (out.exists() or out.is_symlink()) and not out.is_dir():
        raise InputError(f"{out} is not a folder", "Give --out a folder, or a name that is free.")
    with ExitStack() as stack:
        folder = unfinished / "files" if unfinished else stack.enter_context(staged_folder(out))
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        yield folder
        with writing(out):
            out.mkdir(parents=True, exist_ok=True)
            # The manifest first: if a kill interrupts the moves, it rejects the files of an earlier run.
            for file in sorted(folder.iterdir(), key=lambda path: path.name != MANIFEST):
                file.replace(out / file.name)


def write_manifest(folder: Path, versions: Mapping[str, str | None]) -> None:
    """Write the digests and sizes of a folder's files, and the versions of the libraries that made them.

    Raises:
        InputError: The folder cannot be written.

    Example:
        >>> Path("exported").mkdir()
        >>> _ = Path("exported/sparse.onnx").write_bytes(b"graph")
        >>> write_manifest(Path("exported"), {"torch": "2.7.0"})
        >>> sorted(path.name for path in Path("exported").iterdir())
        ['manifest.json', 'sparse.onnx']
    """
    files = {path.name: file_record(path) for path in sorted(folder.iterdir()) if path.suffix in _SUFFIXES}
    write_json(folder / MANIFEST, {"tool_version": __version__, "versions": versions, "files": files})
