"""Finished stages on disk, so that a killed run resumes after the last one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sparsegpt_core.files import KeyedStore

__all__ = ["StageStore"]

Result = dict[str, Any]


class StageStore:
    """The stages of one run: the result of each, as JSON, and the files that it wrote.

    Files of unfinished stages, and of stages of another run, are removed at once.

    Args:
        files: The folder that the stages write to.
        records: The folder of the results; None keeps nothing.
        keys: For each stage, what its result depends on. A result is used only under the same key.

    Example:
        >>> Path("files").mkdir()
        >>> stages = StageStore(Path("files"), Path("stages"), {"export": "opset 17"})
        >>> stages.once("export", lambda: {"nodes": 12})
        {'nodes': 12}
        >>> StageStore(Path("files"), Path("stages"), {"export": "opset 17"}).once("export", dict)
        {'nodes': 12}
    """

    def __init__(self, files: Path, records: Path | None, keys: Mapping[str, str]) -> None:
        self._files, self._keys, self._store = files, keys, KeyedStore(records, files)
        entries = {name: entry for name in keys if (entry := self._store.read(name, self._identity(name)))}
        self._results: dict[str, Result] = {name: entry.content["result"] for name, entry in entries.items()}
        kept = {file for entry in entries.values() for file in entry.files}
        for path in files.iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name not in kept:
                path.unlink()

    @property
    def unusable(self) -> list[str]:
        """The stages of an earlier run whose results this run cannot use."""
        names = self._store.names()
        return [name for name in self._keys if name in names and name not in self._results]

    def __contains__(self, name: str) -> bool:
        """Whether the run has a stage of that name."""
        return name in self._keys

    def once(self, name: str, run: Callable[[], Result]) -> Result:
        """Return a stage's result, running the stage if it is not finished.

        Raises:
            InputError: Its record cannot be written.
        """
        if name not in self._results:
            before = {path.name for path in self._files.iterdir()}
            result = json.loads(json.dumps(run(), allow_nan=False))  # the same whether it has been on disk or not
            written = [path.name for path in sorted(self._files.iterdir()) if path.is_file()]
            self._store.write(
                name, self._identity(name), {"result": result}, [file for file in written if file not in before]
            )
            self._results[name] = result
        return self._results[name]

    def _identity(self, name: str) -> dict[str, str]:
        return {"key": self._keys[name]}
