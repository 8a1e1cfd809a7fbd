"""The SHA-256 of a file, and its check against a record next to the file: its own sidecar, or the folder's manifest.

A record is JSON with ``sha256`` and, optionally, ``bytes``.
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

from sparsegpt_core.errors import InputError
from sparsegpt_core.files.atomic import read_json

__all__ = ["MANIFEST", "file_record", "read_verified", "sha256", "sidecar_path", "verified_digest"]

MANIFEST = "manifest.json"
"""The name of the JSON file that records all files of a folder."""

_KNOWN: dict[tuple[int, ...], str] = {}  # by device, inode, size and time of the last change
_SETTLED = 100_000_000  # nanoseconds; file systems may give two changes within one tick of their clock the same time


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits. A process reads a file once unless it changes.

    Raises:
        InputError: The file is missing or unreadable.

    Example:
        >>> _ = Path("empty.bin").write_bytes(b"")
        >>> sha256(Path("empty.bin"))[:16]
        'e3b0c44298fc1c14'
    """
    try:
        status = path.stat()
        version = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
        if version in _KNOWN:
            return _KNOWN[version]
        digest = hashlib.sha256()
        with path.open("rb") as stream:
            for chunk in iter(lambda: stream.read(1 << 20), b""):
                digest.update(chunk)
        if time.time_ns() - status.st_mtime_ns > _SETTLED:
            _KNOWN[version] = digest.hexdigest()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    return digest.hexdigest()


def file_record(path: Path) -> dict[str, Any]:
    """Return the record of a file: ``sha256`` and ``bytes``.

    Raises:
        InputError: The file is missing or unreadable.

    Example:
        >>> _ = Path("empty.bin").write_bytes(b"")
        >>> file_record(Path("empty.bin"))["bytes"]
        0
    """
    return {"sha256": sha256(path), "bytes": path.stat().st_size}


def verified_digest(path: Path) -> str:
    """Return a file's SHA-256. If the manifest in the file's folder names the file, compare with the record there.

    Raises:
        InputError: The file is unreadable, the manifest records another file, or the manifest is damaged.

    Example:
        >>> from sparsegpt_core.files import write_bytes, write_json
        >>> write_bytes(Path("sparse.onnx"), b"graph")
        >>> write_json(Path("manifest.json"), {"files": {"sparse.onnx": file_record(Path("sparse.onnx"))}})
        >>> verified_digest(Path("sparse.onnx")) == sha256(Path("sparse.onnx"))
        True
    """
    record, manifest = file_record(path), path.with_name(MANIFEST)
    if manifest.is_file():
        content = read_json(manifest)
        files = content.get("files") if isinstance(content, dict) else None
        recorded = files.get(path.name) if isinstance(files, dict) else None
        if recorded is not None and not _describes(recorded, record):
            raise InputError(
                f"{path} is not the file that {MANIFEST} next to it records",
                f"Run prune-export again. If you changed the file yourself, move it, or delete {MANIFEST}.",
            )
    return str(record["sha256"])


def sidecar_path(path: Path) -> Path:
    """Return the path of a file's own record: ``sparse.plan`` has ``sparse.plan.json``.

    Example:
        >>> sidecar_path(Path("run/sparse.plan")).as_posix()
        'run/sparse.plan.json'
    """
    return path.with_name(path.name + ".json")


def read_verified(path: Path, kind: str, hint: str) -> tuple[bytes, dict[str, Any]]:
    """Read a file that is code, or as dangerous as code: only if its sidecar describes it.

    Args:
        path: The file.
        kind: The kind of file, for messages.
        hint: How to get a file with a record.

    Returns:
        The content of the file, and its sidecar.

    Raises:
        InputError: One of the two is missing or unreadable, or the size or SHA-256 differs from the record.

    Example:
        >>> from sparsegpt_core.files import write_bytes, write_json
        >>> write_bytes(Path("net.plan"), b"engine")
        >>> write_json(sidecar_path(Path("net.plan")), file_record(Path("net.plan")))
        >>> read_verified(Path("net.plan"), "plan", "Build it again.")[0]
        b'engine'
    """
    sidecar = sidecar_path(path)
    if path.is_file() and not sidecar.exists():
        raise InputError(f"{path} has no {sidecar.name} next to it, and a {kind} from anyone can run code", hint)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}", hint) from error
    recorded = read_json(sidecar)
    if not _describes(recorded, {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}):
        raise InputError(f"{path} is not the {kind} that {sidecar.name} describes", hint)
    return content, recorded


def _describes(recorded: Any, record: dict[str, Any]) -> bool:
    """Whether JSON from disk records the file of ``record``. The size is optional there."""
    return isinstance(recorded, dict) and {"bytes": record["bytes"], **recorded} == {**recorded, **record}
