"""Weights on disk: safetensors with metadata, or a ``.pt`` that is never trusted with code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from sparsegpt_core.checkpoints.formats import _load_pickle, _load_safetensors, _save
from sparsegpt_core.errors import ModelError
from sparsegpt_core.files import verified_digest
from sparsegpt_core.network import check_finite

__all__ = ["Checkpoint", "load_checkpoint", "save_checkpoint"]


@dataclass(frozen=True)
class Checkpoint:
    """Weights, the SHA-256 of their file, and what was noted with them (empty for foreign files)."""

    state: dict[str, Tensor]
    sha256: str
    metadata: dict[str, Any] = field(default_factory=dict)


def save_checkpoint(path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write weights and JSON-able metadata to a safetensors file, atomically.

    Raises:
        InputError: The file cannot be written.
    """
    _save(path, state, metadata)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read ``.safetensors``, or a ``.pt`` or ``.pth`` that holds nothing but tensors.

    Raises:
        ModelError: The file is missing, truncated, of another kind, or would run code when loaded.
        InputError: It is not the file that a ``manifest.json`` beside it records.
        NumericsError: A tensor holds NaN or infinity.
    """
    if not path.is_file():
        raise ModelError(f"no checkpoint at {path}", "Give a .safetensors or .pt file to --weights.")
    digest = verified_digest(path)
    if path.suffix == ".safetensors":
        state, metadata = _load_safetensors(path)
    else:
        state, metadata = _load_pickle(path), {}
    check_finite(state)
    return Checkpoint(state, digest, metadata)
