"""Writes files whole or not at all, and checks what is read against a recorded SHA-256.

May import ``errors`` and ``text``, and never torch.
"""

from sparsegpt_core.files.atomic import (
    atomic_path,
    partial_folder,
    read_json,
    sha256,
    write_bytes,
    write_json,
    write_text,
)
from sparsegpt_core.files.keyed_store import Entry, KeyedStore, changed_names, json_digest
from sparsegpt_core.files.manifest import MANIFEST, verified_digest
from sparsegpt_core.files.model_notes import check_model_notes
from sparsegpt_core.files.sidecar import read_verified, sidecar_path

__all__ = [
    "MANIFEST",
    "Entry",
    "KeyedStore",
    "atomic_path",
    "changed_names",
    "check_model_notes",
    "json_digest",
    "partial_folder",
    "read_json",
    "read_verified",
    "sha256",
    "sidecar_path",
    "verified_digest",
    "write_bytes",
    "write_json",
    "write_text",
]
