"""Writes files whole or not at all, and checks files against a recorded SHA-256.

May import ``errors`` and ``text``, and never torch.
"""

from sparsegpt_core.files.atomic import atomic_path, read_json, write_bytes, write_json, write_text
from sparsegpt_core.files.digests import MANIFEST, file_record, read_verified, sha256, sidecar_path, verified_digest
from sparsegpt_core.files.keyed_store import Entry, KeyedStore, changed_names, json_digest
from sparsegpt_core.files.lock import take_lock
from sparsegpt_core.files.model_metadata import METADATA_KEY, check_model_metadata, read_checkpoint_metadata
from sparsegpt_core.files.staging import remove_abandoned, staged_file, staged_folder, writing

__all__ = [
    "MANIFEST",
    "METADATA_KEY",
    "Entry",
    "KeyedStore",
    "atomic_path",
    "changed_names",
    "check_model_metadata",
    "file_record",
    "json_digest",
    "read_checkpoint_metadata",
    "read_json",
    "read_verified",
    "remove_abandoned",
    "sha256",
    "sidecar_path",
    "staged_file",
    "staged_folder",
    "take_lock",
    "verified_digest",
    "write_bytes",
    "write_json",
    "write_text",
    "writing",
]
