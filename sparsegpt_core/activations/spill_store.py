"""Activations that wait for their next reader: on their device, in host memory beyond it, and on disk beyond that."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from sparsegpt_core.errors import InputError, first_line

__all__ = ["ActivationStore"]

Key = TypeVar("Key")

_HOST = torch.device("cpu")


class ActivationStore(Generic[Key]):
    """Stores one dictionary of values for every chunk of samples.

    All chunks are taken and put back in order, again and again. The chunk put last therefore waits longest for its
    next reader, and is the one to leave the device if it does not fit.

    Args:
        budget: Bytes of activations to keep on the device between a put and the next take.
        scratch: Folder for activations that fit nowhere else. The store makes its own folder there when it first
            needs one.
        device: The device that values come from and are loaded to.
        host_budget: Bytes of activations to keep in host memory, where that is not the device.
    """

    def __init__(self, budget: int, scratch: Path, device: torch.device, host_budget: int = 0) -> None:
        self._scratch, self._device = scratch, device
        self._free = {device: budget}
        self._free.setdefault(_HOST, host_budget)
        self._folder: Path | None = None
        self._kept: dict[int, _Kept[Key]] = {}
        self._spilled: dict[int, list[Key]] = {}
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
            place = next((place for place, free in self._free.items() if size <= free), None)
            if place is None:
                self.spilled_bytes += size
            else:
                self._free[place] -= size
        if place is not None:
            self._kept[chunk] = _Kept(place, size, _moved(values, place) if place != self._device else dict(values))
            return
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
        if (kept := self._kept.pop(chunk, None)) is not None:
            with self._lock:
                self._free[kept.place] += kept.size
            return _moved(kept.values, self._device) if kept.place != self._device else kept.values
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


@dataclass(frozen=True)
class _Kept(Generic[Key]):
    """The values of one chunk, in memory."""

    place: torch.device
    """Where they are."""
    size: int
    """Their bytes."""
    values: dict[Key, Any]
    """The values."""


def _moved(values: Mapping[Key, Any], device: torch.device) -> dict[Key, Any]:
    """Copy values to another device. Tensors that share memory share it there too."""
    whole: dict[tuple[int, torch.dtype], Tensor] = {}

    def move(value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return type(value)(map(move, value))
        if not isinstance(value, Tensor):
            return value
        storage = value.untyped_storage()
        key = storage.data_ptr(), value.dtype
        if key not in whole:
            whole[key] = value.as_strided((storage.nbytes() // value.element_size(),), (1,), 0).to(device)
        return whole[key].as_strided(value.shape, value.stride(), value.storage_offset())

    return {name: move(value) for name, value in values.items()}


def _bytes(values: Iterable[Any]) -> int:
    """The memory of all tensors; memory that tensors share counts once."""
    storages = {}
    for value in values:
        for tensor in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())
