"""Files that are code, or as good as code: read only where the JSON beside them records their SHA-256."""

from __future__ import annotations

__all__ = ["read_verified", "sidecar_path"]

import hashlib
from pathlib import Path
from typing import Any, Dict, Tuple

from sparsegpt_core.errors import InputError
from sparsegpt_core.files.atomic import read_json


def sidecar_path(path: Path) -> Path:
    """Return where a file's JSON lies: ``sparse.plan`` has ``sparse.plan.json``."""
    return path.with_name(path.name + ".json")


def read_verified(path: Path, kind: str, hint: str) -> Tuple[bytes, Dict[str, Any]]:
    """Read a file and its sidecar.

    Args:
        path: The file.
        kind: What it is, for messages.
        hint: How to get one that is recorded.

    Raises:
        InputError: Either is missing or unreadable, or size or SHA-256 are not the recorded ones.
    """
    sidecar = sidecar_path(path)
    if path.is_file() and not sidecar.exists():
        raise InputError(f"{path} has no {sidecar.name} beside it, and a {kind} from anyone can run code", hint)
    try:
        size = path.stat().st_size
        record = read_json(sidecar) if path.is_file() else {}
        matches = isinstance(record, dict) and record.get("bytes", size) == size
        content = path.read_bytes() if matches else b""
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}", hint) from error
    if not matches or record.get("sha256") != hashlib.sha256(content).hexdigest():
        raise InputError(f"{path} is not the {kind} that {sidecar.name} describes", hint)
    return content, record
