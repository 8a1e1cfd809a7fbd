"""Weights on disk: safetensors with metadata, or a ``.pt`` file, read without running its code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from sparsegpt_core.checkpoints.entries import pick_state
from sparsegpt_core.checkpoints.formats import _check_in_memory, _is_safetensors, _load_pickle, _load_safetensors, _save
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
    key: str = ""
    """The entry of the file that holds the weights; empty if the file holds nothing else."""
    other_keys: tuple[str, ...] = ()
    """Further entries that hold weights, such as averaged ones (EMA)."""


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


def load_checkpoint(path: Path, key: str | None = None) -> Checkpoint:
    """Read a ``.safetensors`` file, or a ``.pt`` or ``.pth`` file that contains only tensors.

    Args:
        path: The file.
        key: The entry of a ``.pt`` file that holds the weights, such as ``model_ema``; None: the first of
            ``state_dict``, ``model_state_dict`` and ``model``, else the only one. These are the weights before
            averaging, as the evaluation scripts of timm and DeiT take them by default.

    Raises:
        ModelError: The file is missing, truncated, of another kind, or would run code when loaded; or no entry can be
            chosen.
        InputError: It is not the file that the ``manifest.json`` next to it records.
        NumericsError: A tensor contains NaN or infinity.

    Example:
        >>> import torch
        >>> torch.save({"state_dict": {"weight": torch.ones(4, 2)}}, "net.pt")
        >>> load_checkpoint(Path("net.pt")).state["weight"].shape
        torch.Size([4, 2])
        >>> load_checkpoint(Path("net.pt")).key
        'state_dict'
    """
    if not path.is_file():
        raise ModelError(f"no checkpoint at {path}", "Give a .safetensors or .pt file to `weights`.")
    if path.suffix == ".onnx":
        raise ModelError(
            f"{path} is an ONNX file", "Give it as `model`, or give PyTorch weights: a .safetensors or .pt file."
        )
    digest = verified_digest(path)
    if _is_safetensors(path):
        content, metadata = _load_safetensors(path)
    else:
        content, metadata = _load_pickle(path), {}
    state, taken, others = pick_state(content, path, key)
    _check_in_memory(state, path)
    check_finite(state)
    return Checkpoint(state, digest, metadata, taken, others)
