"""Pruned layers on disk, so that a killed run resumes after the last one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sparsegpt_core import __version__
from sparsegpt_core.checkpoints import load_checkpoint, save_checkpoint
from sparsegpt_core.files import KeyedStore
from sparsegpt_core.network import GraphNetwork, Int8Weight, tensors_of

__all__ = ["LayerOutcome", "LayerStore", "run_key"]

_INT8 = "int8."


@dataclass(frozen=True)
class LayerOutcome:
    """The result of pruning one layer."""

    weight: Tensor
    """The pruned weight, in the layer's shape."""
    absorbed: Tensor | None = None
    """The new value of the bias or batch-norm buffer that absorbs the layer's shift."""
    int8_weight: Int8Weight | None = None
    """The weight rounded to INT8."""
    measured: dict[str, Any] = field(default_factory=dict)
    """Fields of the layer's result."""
    warnings: tuple[str, ...] = ()
    """Warnings of the solver."""


class LayerStore:
    """The finished layers of one run.

    Args:
        folder: The folder of the layers of all runs; None keeps nothing.
        key: The value of :func:`run_key` for this run.
    """

    def __init__(self, folder: Path | None, key: str) -> None:
        self._folder = folder and folder / key
        self._store, self._key = KeyedStore(self._folder), key

    def load(self, layer: str) -> LayerOutcome | None:
        """Return a layer's outcome; None if it is not finished or is damaged."""
        entry = self._store.read(_name(layer), self._identity(layer))
        if self._folder is None or entry is None:
            return None
        (file,) = entry.files
        tensors = dict(load_checkpoint(self._folder / file).state)
        measured = entry.content["measured"]
        if measured.get("alphas"):  # JSON has turned the numbers into text
            measured["alphas"] = {float(alpha): rows for alpha, rows in measured["alphas"].items()}
        weight, absorbed = tensors.pop("weight"), tensors.pop("absorbed", None)
        parts = {name.removeprefix(_INT8): tensor for name, tensor in tensors.items()}
        int8_weight = Int8Weight(**parts) if parts else None
        return LayerOutcome(weight, absorbed, int8_weight, measured, tuple(entry.content["warnings"]))

    def save(self, layer: str, outcome: LayerOutcome) -> None:
        """Keep a layer's outcome.

        Raises:
            InputError: A file cannot be written.
        """
        if self._folder is None:
            return
        tensors = {"weight": outcome.weight}
        if outcome.absorbed is not None:
            tensors["absorbed"] = outcome.absorbed
        if outcome.int8_weight is not None:
            tensors |= {f"{_INT8}{part.name}": getattr(outcome.int8_weight, part.name) for part in fields(Int8Weight)}
        file = f"{_name(layer)}.safetensors"
        save_checkpoint(self._folder / file, tensors, {})
        content = {"measured": outcome.measured, "warnings": outcome.warnings}
        self._store.write(_name(layer), self._identity(layer), content, [file])

    def _identity(self, layer: str) -> dict[str, str]:
        return {"run": self._key, "layer": layer}


def run_key(model: nn.Module, batches: Iterable[Tensor], about: Mapping[str, Any]) -> str:
    """Return a digest of everything that a run's results depend on: weights, inputs, settings, versions.

    Args:
        model: The network before it is pruned.
        batches: Its calibration inputs, each (N, ...).
        about: The settings, as JSON or as text can express them.

    Returns:
        16 hexadecimal digits.

    Example:
        >>> import torch
        >>> layer, batch = torch.nn.Linear(4, 2), torch.ones(1, 4)
        >>> run_key(layer, [batch], {"seed": 0}) == run_key(layer, [batch], {"seed": 0})
        True
        >>> run_key(layer, [batch], {"seed": 0}) == run_key(layer, [batch], {"seed": 1})
        False
    """
    digest = hashlib.sha256()
    versions = {"tool": __version__, "torch": torch.__version__}
    digest.update(json.dumps({**about, **versions}, default=str, sort_keys=True).encode())
    digest.update(model.digest.encode() if isinstance(model, GraphNetwork) else b"")
    tensors: Mapping[str, Tensor] = model.state_dict()
    for name, tensor in (*tensors.items(), *(("", tensor) for batch in batches for tensor in tensors_of(batch))):
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def _name(layer: str) -> str:
    """Return a file name for a layer, whose own name may contain any character."""
    return hashlib.sha256(layer.encode()).hexdigest()[:16]
