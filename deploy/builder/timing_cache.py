"""Timing caches: the builder's measurements on disk, for later builds."""

from __future__ import annotations

__all__ = ["load_timing_cache", "save_timing_cache"]

import hashlib
from pathlib import Path
from typing import Optional

from sparsegpt_core.files import read_verified, sidecar_path, write_bytes, write_json


def load_timing_cache(path: Path) -> Optional[bytes]:
    """Read a timing cache that :func:`save_timing_cache` wrote; None if the file does not exist.

    Raises:
        InputError: The file does not match its sidecar. TensorRT's parser must not get such a file.
    """
    if not path.exists():
        return None
    content, _ = read_verified(path, "timing cache", "Delete it; the next build measures again.")
    return content


def save_timing_cache(path: Path, content: bytes, backend: str, version: str) -> None:
    """Write a timing cache and its sidecar.

    Args:
        path: The cache's file.
        content: The cache as TensorRT serialised it.
        backend: The backend that measured.
        version: The backend's version.

    Raises:
        InputError: A file cannot be written.
    """
    record = {"backend": backend, "backend_version": version, "bytes": len(content)}
    write_bytes(path, content)
    write_json(sidecar_path(path), {**record, "sha256": hashlib.sha256(content).hexdigest()})
