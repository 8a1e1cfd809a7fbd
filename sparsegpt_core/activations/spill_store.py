"""Activations that wait for their next reader: in memory up to a budget, and on disk beyond it."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from sparsegpt_core.errors import InputError, first_line

__all__ = ["ActivationStore"]

Key = TypeVar("Key")


class ActivationStore(Generic[Key]):
    """Stores one dictionary of values for every chunk of samples.

    All chunks are taken and put back in order, again and again. The chunk put last therefore waits longest for its
    next reader, and goes to disk if it does not fit.

    Args:
        budget: Bytes of activations to keep in memory between a put and the next take.
        scratch: Folder for the other activations. The store makes its own folder there when it first needs one.
        device: The device that values are loaded to.
    """

    def __init__(self, budget: int, scratch: Path, device: torch.device) -> None:
        self._budget, self._scratch, self._device = budget, scratch, device
        self._folder: Path | None = None
        self._kept: dict[int, dict[Key, Any]] = {}
        self._spilled: dict[int, list[Key]] = {}
        self._bytes: dict[int, int] = {}
        self._lock = threading.Lock()
        self.spilled_bytes = 0
        """Bytes written to disk so far."""

    def put(self, chunk: int, values: Mapping[Key, Any]) -> None:
        """Store the values of one chunk.

        Raises:
            InputError: The values do not fit in memory, and the disk is full or cannot be written.
        """
        size = _bytes(values.values())
        with self._lock:
            if sum(self._bytes.values()) + size <= self._budget:
                self._kept[chunk], self._bytes[chunk] = dict(values), size
                return
            self.spilled_bytes += size
        try:
            torch.save(list(values.values()), self._path(chunk))
        except (OSError, RuntimeError) as error:
            raise InputError(
                f"cannot keep activations in {self._scratch}: {first_line(error)}",
                "Free some space there, raise `memory_limit`, or use fewer `samples`.",
            ) from error
        self._spilled[chunk] = list(values)

    def take(self, chunk: int) -> dict[Key, Any]:
        """Return the values of one chunk, and remove them from the store."""
        with self._lock:
            if chunk in self._kept:
                del self._bytes[chunk]
                return self._kept.pop(chunk)
        values = torch.load(self._path(chunk), map_location=self._device, weights_only=True)
        self._path(chunk).unlink()
        return dict(zip(self._spilled.pop(chunk), values, strict=True))

    def close(self) -> None:
        """Remove the store's folder."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _path(self, chunk: int) -> Path:
        with self._lock:
            if self._folder is None:
                self._scratch.mkdir(parents=True, exist_ok=True)
                self._folder = Path(tempfile.mkdtemp(prefix=".activations.", dir=self._scratch))
        return self._folder / f"{chunk}.pt"


def _bytes(values: Iterable[Any]) -> int:
    """The memory of all tensors; memory that tensors share counts once."""
    storages = {}
    for value in values:
        for tensor in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())
