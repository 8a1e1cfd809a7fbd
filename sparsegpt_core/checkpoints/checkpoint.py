"""Weights on disk: safetensors with metadata, or a ``.pt`` file, read without running its code."""

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
    """The content of a checkpoint.

    Example:
        >>> import torch
        >>> Checkpoint({"weight": torch.ones(4, 2)}, "0" * 64).metadata
        {}
    """

    state: dict[str, Tensor]
    """The weights, by name."""
    sha256: str
    """The SHA-256 of the file."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """The metadata about the model; empty for files of other programs."""


def save_checkpoint(path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write weights and metadata to a safetensors file, atomically.

    Args:
        path: The ``.safetensors`` file.
        state: The weights, by name.
        metadata: Metadata about the model, as JSON can express it.

    Raises:
        InputError: The file cannot be written.

    Example:
        >>> import torch
        >>> save_checkpoint(Path("net.safetensors"), {"weight": torch.ones(4, 2)}, {"model": "simple_cnn"})
        >>> load_checkpoint(Path("net.safetensors")).metadata
        {'model': 'simple_cnn'}
    """
    _save(path, state, metadata)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a ``.safetensors`` file, or a ``.pt`` or ``.pth`` file that contains only tensors.

    Raises:
        ModelError: The file is missing, truncated, of another kind, or would run code when loaded.
        InputError: It is not the file that the ``manifest.json`` next to it records.
        NumericsError: A tensor contains NaN or infinity.

    Example:
        >>> import torch
        >>> torch.save({"state_dict": {"weight": torch.ones(4, 2)}}, "net.pt")
        >>> load_checkpoint(Path("net.pt")).state["weight"].shape
        torch.Size([4, 2])
    """
    if not path.is_file():
        raise ModelError(f"no checkpoint at {path}", "Give a .safetensors or .pt file to `weights`.")
    digest = verified_digest(path)
    if path.suffix == ".safetensors":
        state, metadata = _load_safetensors(path)
    else:
        state, metadata = _load_pickle(path), {}
    check_finite(state)
    return Checkpoint(state, digest, metadata)
