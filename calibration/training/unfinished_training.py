"""A training under way, on disk: written now and then, found again after a kill, gone once it is finished."""

from __future__ import annotations

import json
import pickle
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from sparsegpt_core.errors import DataError, first_line
from sparsegpt_core.files import atomic_path

__all__ = ["Unfinished"]

_SECONDS = 60.0  # between two writings, and at least this many times as long as one takes:
_PATIENCE = 20

State = dict[str, Any]


class Unfinished:
    """Where a training is kept until it is done.

    Args:
        path: The file.
        key: Everything that the training depends on, as JSON can hold it: what is found is of use only where all of
            it is the same.
        seconds: The least time between two writings.
    """

    def __init__(self, path: Path, key: Mapping[str, Any], seconds: float = _SECONDS) -> None:
        self._path, self._key, self._pause = path, json.loads(json.dumps(key)), seconds
        self._seconds, self._last = seconds, time.monotonic()

    def load(self) -> tuple[State | None, tuple[str, ...]]:
        """Return what was kept, None where nothing of use was, and the keys that have changed since.

        Raises:
            DataError: The file is damaged.
        """
        if not self._path.is_file():
            return None, ()
        try:
            content = torch.load(self._path, map_location="cpu", weights_only=True)
            key, state = json.loads(content["key"]), content["state"]
        except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, LookupError, TypeError, ValueError) as error:
            raise DataError(
                f"the unfinished training {self._path} is damaged: {first_line(error)}", "Remove it to start anew."
            ) from error
        changed = tuple(name for name in key.keys() | self._key.keys() if key.get(name) != self._key.get(name))
        return (None if changed else state), tuple(sorted(changed))

    def keep(self, state: Callable[[], State]) -> None:
        """Write the state if it is time.

        Raises:
            InputError: The file cannot be written.
        """
        start = time.monotonic()
        if start - self._last < self._pause:
            return
        with atomic_path(self._path) as temporary:
            torch.save({"key": json.dumps(self._key), "state": state()}, temporary)
        self._last = time.monotonic()
        self._pause = max(self._seconds, _PATIENCE * (self._last - start))

    def remove(self) -> None:
        """Forget it."""
        self._path.unlink(missing_ok=True)
