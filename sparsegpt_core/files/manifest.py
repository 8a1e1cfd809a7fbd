"""Files that a manifest beside them names: they are loaded only as they were written."""

from __future__ import annotations

from pathlib import Path

from sparsegpt_core.errors import InputError
from sparsegpt_core.files.atomic import read_json, sha256

__all__ = ["MANIFEST", "verified_digest"]

MANIFEST = "manifest.json"


def verified_digest(path: Path) -> str:
    """Return a file's SHA-256, after a look at the manifest in its folder, if there is one that names it.

    Raises:
        InputError: The file is not the one that the manifest records, or the manifest is damaged.
    """
    digest, manifest = sha256(path), path.with_name(MANIFEST)
    if manifest.is_file():
        content = read_json(manifest)
        files = content.get("files") if isinstance(content, dict) else None
        record = files.get(path.name) if isinstance(files, dict) else None
        if record is not None and (not isinstance(record, dict) or record.get("sha256") != digest):
            raise InputError(
                f"{path} is not the file that {MANIFEST} beside it records",
                f"Run prune-export again; or move it to another folder, or delete {MANIFEST}, if the change is yours.",
            )
    return digest
