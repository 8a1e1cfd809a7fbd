"""Finished cells on disk: each a file that is whole and its own, or is not used. Loads no torch."""

from __future__ import annotations

import glob
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparsegpt_core.files import write_json

__all__ = ["Record", "Store", "digest"]

Record = dict[str, Any]
_DIGITS = 10  # of an identity's digest in a name


class Store:
    """A folder with one JSON file for each cell: ``identity``, ``sha256``, and ``result`` or ``error`` and ``hint``.

    A file's name ends in a digest of the identity, so that cells of other settings stand beside each other.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.damaged: list[Path] = []
        """Files that were asked for and could not be used."""

    def path(self, key: str, identity: Mapping[str, Any]) -> Path:
        """Where a cell is kept."""
        return self._folder / f"{key}_{digest(identity)[:_DIGITS]}.json"

    def write(self, key: str, identity: Mapping[str, Any], outcome: Mapping[str, Any]) -> None:
        """Keep what came of a cell.

        Raises:
            InputError: The file cannot be written.
        """
        record = {"identity": dict(identity), **outcome}
        write_json(self.path(key, identity), {**record, "sha256": digest(record)})

    def read(self, key: str, identity: Mapping[str, Any]) -> Record | None:
        """Return what came of a cell, None where nothing of use is kept."""
        path = self.path(key, identity)
        record = _load(path)
        if record is not None and record["identity"] == _as_json(identity):
            return record
        if path.exists():
            self.damaged.append(path)
        return None

    def changed(self, key: str, identity: Mapping[str, Any]) -> set[str]:
        """Return the names of what differs in files of the same cell that are there with another identity."""
        own = _as_json(identity)
        found = (_load(path) for path in self._folder.glob(f"{glob.escape(key)}_{'[0-9a-f]' * _DIGITS}.json"))
        others = [record["identity"] for record in found if record is not None]
        return {name for other in others for name in {*own, *other} if own.get(name) != other.get(name)}


def digest(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of what JSON can hold, as 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _load(path: Path) -> Record | None:
    """Read a file that is whole; None for any other."""
    try:
        record = json.loads(path.read_bytes())
        expected = record.pop("sha256")
        return {"identity": record["identity"], **record} if expected == digest(record) else None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None


def _as_json(identity: Mapping[str, Any]) -> Any:
    return json.loads(json.dumps(identity))
