"""Results of long work on disk, each found again only under the settings that it was computed with."""

from __future__ import annotations

__all__ = ["Entry", "KeyedStore", "changed_names", "json_digest"]

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from sparsegpt_core.errors import InputError
from sparsegpt_core.files.atomic import read_json, write_json
from sparsegpt_core.files.digests import sha256


@dataclass(frozen=True)
class Entry:
    """A result that a store keeps.

    Example:
        >>> Entry({"samples": 512}, {"loss": 0.25}).content
        {'loss': 0.25}
    """

    identity: dict[str, Any]
    """What the result depends on, as JSON."""
    content: dict[str, Any]
    """The result, as JSON."""
    files: dict[str, str] = field(default_factory=dict)
    """The SHA-256 of each file that belongs to the result, by the file's name."""


class KeyedStore:
    """A folder with one record for each result: ``NAME.json``, with the identity, the content and a SHA-256 of both.

    A record may name files, with their SHA-256. Write these files first: a result is found only if its record and all
    of its files are whole.

    Args:
        folder: The folder of the records. The first :meth:`write` makes it. None keeps nothing.
        files: The folder of the files that records name; by default the folder of the records.

    Example:
        >>> from pathlib import Path
        >>> store = KeyedStore(Path("results"))
        >>> store.write("layer", {"samples": 512}, {"loss": 0.25})
        >>> store.read("layer", {"samples": 512}).content
        {'loss': 0.25}
        >>> store.read("layer", {"samples": 1024}) is None
        True
    """

    def __init__(self, folder: Optional[Path], files: Optional[Path] = None) -> None:
        self._folder, self._files = folder, files or folder

    def path(self, name: str) -> Path:
        """Return where the record of a result is kept."""
        return (self._folder or Path()) / f"{name}.json"

    def names(self) -> set[str]:
        """Return the names of all records, also of damaged ones."""
        return {path.stem for path in self._folder.glob("[!.]*.json")} if self._folder else set()

    def entry(self, name: str) -> Optional[Entry]:
        """Return a result under any identity; None if it is not kept or is damaged."""
        if self._folder is None or self._files is None:
            return None
        try:
            record = read_json(self.path(name))
            whole = record.pop("sha256") == json_digest(record)
            identity, files = record.pop("identity"), record.pop("files", {})
            whole = whole and isinstance(identity, dict)
            whole = whole and all(sha256(self._files / file) == digest for file, digest in files.items())
        except (InputError, LookupError, TypeError, AttributeError, RecursionError):
            return None
        return Entry(identity, record, files) if whole else None

    def read(self, name: str, identity: Mapping[str, Any]) -> Optional[Entry]:
        """Return a result; None if it is not kept, is damaged, or was computed with another identity."""
        entry = self.entry(name)
        return entry if entry and entry.identity == _as_json(identity) else None

    def write(
        self, name: str, identity: Mapping[str, Any], content: Mapping[str, Any], files: Iterable[str] = ()
    ) -> None:
        """Keep a result.

        Args:
            name: The name of its record.
            identity: What the result depends on. Values that JSON cannot express are kept as text.
            content: The result, as JSON can express it.
            files: The names of the files that belong to it.

        Raises:
            InputError: The record cannot be written, or a file is missing.
        """
        if self._folder is None or self._files is None:
            return
        record = {"identity": _as_json(identity), **content}
        digests = {file: sha256(self._files / file) for file in files}
        if digests:
            record["files"] = digests
        write_json(self.path(name), {**record, "sha256": json_digest(record)})


def changed_names(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the names whose values differ in two identities, in alphabetical order.

    Example:
        >>> changed_names({"seed": 0, "samples": 512}, {"seed": 0, "samples": 1024})
        ['samples']
    """
    before, now = _as_json(before), _as_json(now)
    return sorted(name for name in {**before, **now} if before.get(name) != now.get(name))


def json_digest(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of JSON content as 64 hexadecimal digits; the order of the keys does not matter.

    Example:
        >>> json_digest({"a": 1, "b": 2}) == json_digest({"b": 2, "a": 1})
        True
    """
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _as_json(identity: Mapping[str, Any]) -> Any:
    return json.loads(json.dumps(identity, default=str))
