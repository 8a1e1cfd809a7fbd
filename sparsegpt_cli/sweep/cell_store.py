"""Finished cells on disk. A damaged cell is computed again. Loads no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparsegpt_core.files import KeyedStore, changed_names, json_digest

__all__ = ["CellStore", "Record"]

Record = dict[str, Any]
_DIGEST_DIGITS = 10  # of an identity's digest, in a file name


class CellStore:
    """A folder with one JSON file for each cell: ``identity``, ``sha256``, and ``result`` or ``error`` and ``hint``.

    A file's name ends in a digest of the identity, so results of the same cell with other settings are kept too.
    """

    def __init__(self, folder: Path) -> None:
        self._store = KeyedStore(folder)
        self.damaged: list[Path] = []
        """Files that :meth:`read` found but could not use."""

    def path(self, key: str, identity: Mapping[str, Any]) -> Path:
        """Return where a cell is kept."""
        return self._store.path(_name(key, identity))

    def write(self, key: str, identity: Mapping[str, Any], outcome: Mapping[str, Any]) -> None:
        """Keep the outcome of a cell.

        Raises:
            InputError: The file cannot be written.
        """
        self._store.write(_name(key, identity), identity, outcome)

    def read(self, key: str, identity: Mapping[str, Any]) -> Record | None:
        """Return the outcome of a cell; None if it is not kept or is damaged."""
        entry = self._store.read(_name(key, identity), identity)
        if entry is not None:
            return {"identity": entry.identity, **entry.content}
        path = self.path(key, identity)
        if path.exists():
            self.damaged.append(path)
        return None

    def changed(self, key: str, identity: Mapping[str, Any]) -> set[str]:
        """Return the names of the settings in which kept results of the same cell differ."""
        pattern = re.compile(rf"{re.escape(key)}_[0-9a-f]{{{_DIGEST_DIGITS}}}")
        others = (self._store.entry(name) for name in self._store.names() if pattern.fullmatch(name))
        return {name for other in others if other is not None for name in changed_names(other.identity, identity)}


def _name(key: str, identity: Mapping[str, Any]) -> str:
    return f"{key}_{json_digest(identity)[:_DIGEST_DIGITS]}"
