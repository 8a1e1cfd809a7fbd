"""Layers that a run has finished, on disk, so that a run that was killed goes on behind them."""

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
from sparsegpt_core.errors import SparseGPTError
from sparsegpt_core.network import Int8Weight

__all__ = ["LayerOutcome", "LayerStore", "run_key"]

_INTEGERS = "integers."


@dataclass(frozen=True)
class LayerOutcome:
    """What came of one layer.

    ``weight`` is pruned, in the layer's shape; ``absorbed`` is what the parameter or buffer behind the layer becomes
    that takes up its shift; ``measured`` are fields of the layer's result.
    """

    weight: Tensor
    absorbed: Tensor | None = None
    integers: Int8Weight | None = None
    measured: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


class LayerStore:
    """The finished layers of one run.

    Args:
        folder: Where those of all runs are kept; None keeps nothing.
        key: What the run's results depend on, from :func:`run_key`.
    """

    def __init__(self, folder: Path | None, key: str) -> None:
        self._folder = folder / key if folder else None

    def load(self, layer: str) -> LayerOutcome | None:
        """Return a layer's outcome; None where it is not finished, or its file is damaged."""
        path = self._path(layer)
        if path is None or not path.is_file():
            return None
        try:
            found = load_checkpoint(path)
            measured, tensors = found.metadata["measured"], dict(found.state)
            if measured.get("alphas"):  # JSON has made texts of their numbers
                measured["alphas"] = {float(alpha): rows for alpha, rows in measured["alphas"].items()}
            weight, absorbed = tensors.pop("weight"), tensors.pop("absorbed", None)
            parts = {name.removeprefix(_INTEGERS): tensor for name, tensor in tensors.items()}
            integers = Int8Weight(**parts) if parts else None
            return LayerOutcome(weight, absorbed, integers, measured, tuple(found.metadata["warnings"]))
        except (SparseGPTError, LookupError, TypeError, AttributeError, ValueError):
            return None  # it is computed again and written anew

    def save(self, layer: str, outcome: LayerOutcome) -> None:
        """Keep a layer's outcome.

        Raises:
            InputError: It cannot be written.
        """
        path = self._path(layer)
        if path is None:
            return
        tensors = {"weight": outcome.weight}
        if outcome.absorbed is not None:
            tensors["absorbed"] = outcome.absorbed
        if outcome.integers is not None:
            tensors |= {f"{_INTEGERS}{part.name}": getattr(outcome.integers, part.name) for part in fields(Int8Weight)}
        save_checkpoint(path, tensors, {"measured": outcome.measured, "warnings": outcome.warnings})

    def _path(self, layer: str) -> Path | None:
        return self._folder and self._folder / f"{hashlib.sha256(layer.encode()).hexdigest()[:16]}.safetensors"


def run_key(model: nn.Module, batches: Iterable[Tensor], about: Mapping[str, Any]) -> str:
    """Return a name for everything that a run's results depend on: weights, inputs, settings, versions.

    Args:
        model: Before it is pruned.
        batches: Its calibration inputs.
        about: What else matters, as JSON can hold it, or as text.
    """
    digest = hashlib.sha256()
    versions = {"tool": __version__, "torch": torch.__version__}
    digest.update(json.dumps({**about, **versions}, default=str, sort_keys=True).encode())
    tensors: Mapping[str, Tensor] = model.state_dict()
    for name, tensor in (*tensors.items(), *(("", batch) for batch in batches)):
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]
