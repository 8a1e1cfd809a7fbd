"""Stages that a run has finished, on disk, so that a run that was killed goes on behind them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sparsegpt_core.errors import InputError
from sparsegpt_core.files import read_json, sha256, write_json

__all__ = ["StageStore"]

Told = dict[str, Any]


class StageStore:
    """The stages of one run: what each told, as JSON, and the files that it wrote.

    Files of stages that are not finished, or of another run, are removed at once.

    Args:
        files: The folder that stages write to.
        records: Where it is kept what they told; None keeps nothing.
        keys: By stage what its outcome depends on; it is found again only under the same one.
    """

    def __init__(self, files: Path, records: Path | None, keys: Mapping[str, str]) -> None:
        self._files, self._records, self._keys = files, records, keys
        self._told = {name: record for name in keys if (record := self._load(name))}
        kept = {name for record in self._told.values() for name in record["files"]}
        for path in files.iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name not in kept:
                path.unlink()

    @property
    def anew(self) -> list[str]:
        """The stages of which something was kept that this run cannot use."""
        kept = {path.stem for path in self._records.glob("*.json")} if self._records else set()
        return [name for name in self._keys if name in kept and name not in self._told]

    def __contains__(self, name: str) -> bool:
        """Whether the run has a stage of that name."""
        return name in self._keys

    def once(self, name: str, run: Callable[[], Told]) -> Told:
        """Return what a stage told, running it if it is not finished.

        Raises:
            InputError: Its record cannot be written.
        """
        if name not in self._told:
            before = {path.name for path in self._files.iterdir()}
            told = json.loads(json.dumps(run(), allow_nan=False))  # the same whether it has been on disk or not
            written = [path for path in sorted(self._files.iterdir()) if path.is_file() and path.name not in before]
            files = {path.name: sha256(path) for path in written if self._records}
            self._told[name] = {"key": self._keys[name], "told": told, "files": files}
            if self._records:
                write_json(self._record(self._records, name), self._told[name])
        outcome: Told = self._told[name]["told"]
        return outcome

    def _load(self, name: str) -> Told | None:
        """What is kept of a stage; None where that is of another run, or damaged, or its files are."""
        if self._records is None:
            return None
        try:
            record: Told = read_json(self._record(self._records, name))
            same = record["key"] == self._keys[name] and isinstance(record["told"], dict)
            whole = all(sha256(self._files / file) == digest for file, digest in record["files"].items())
        except (InputError, LookupError, TypeError, AttributeError):
            return None
        return record if same and whole else None

    @staticmethod
    def _record(folder: Path, name: str) -> Path:
        return folder / f"{name}.json"
