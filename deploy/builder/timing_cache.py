"""Timing caches: the builder's measurements, kept for its next builds."""

from __future__ import annotations

__all__ = ["load_timing_cache", "save_timing_cache"]

import hashlib
from pathlib import Path
from typing import Optional

from sparsegpt_core.files import read_verified, sidecar_path, write_bytes, write_json


def load_timing_cache(path: Path) -> Optional[bytes]:
    """Read a timing cache that :func:`save_timing_cache` wrote; None where there is none yet.

    Raises:
        InputError: It is not what its sidecar records: TensorRT's own code parses it.
    """
    if not path.exists():
        return None
    content, _ = read_verified(path, "timing cache", "Delete it, and the next build measures anew.")
    return content


def save_timing_cache(path: Path, content: bytes, backend: str, version: str) -> None:
    """Write a timing cache, and the sidecar without which it is not read again.

    Args:
        path: The file; the sidecar lies beside it.
        content: What TensorRT gave.
        backend: Who measured.
        version: Of the backend.

    Raises:
        InputError: A file cannot be written.
    """
    record = {"backend": backend, "backend_version": version, "bytes": len(content)}
    write_bytes(path, content)
    write_json(sidecar_path(path), {**record, "sha256": hashlib.sha256(content).hexdigest()})
