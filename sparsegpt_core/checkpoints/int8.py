"""The INT8 weights next to a checkpoint, in ``NAME.int8.safetensors``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

from sparsegpt_core.checkpoints.formats import _load_safetensors, _save
from sparsegpt_core.errors import ModelError
from sparsegpt_core.files import sha256, verified_digest
from sparsegpt_core.network import Int8Weight

__all__ = ["load_int8", "save_int8"]

_PARTS = tuple(part.name for part in fields(Int8Weight))


def save_int8(weights: Path, int8_weights: Mapping[str, Int8Weight]) -> Path:
    """Write the INT8 weights of a checkpoint next to it, and return the path.

    Args:
        weights: The checkpoint, which must exist: its SHA-256 is recorded.
        int8_weights: The INT8 weights, by layer.

    Raises:
        InputError: The file cannot be written.

    Example:
        >>> import torch
        >>> from sparsegpt_core.checkpoints import save_checkpoint
        >>> weight = Int8Weight(torch.ones(1, 4, dtype=torch.int8), torch.ones(1), torch.zeros(1))
        >>> save_checkpoint(Path("net.safetensors"), {"fc.weight": torch.ones(1, 4)}, {})
        >>> save_int8(Path("net.safetensors"), {"fc": weight}).name
        'net.int8.safetensors'
    """
    tensors = {f"{name}.{part}": getattr(weight, part) for name, weight in int8_weights.items() for part in _PARTS}
    path = _int8_path(weights)
    _save(path, tensors, {"weights_sha256": sha256(weights)})
    return path


def load_int8(weights: Path) -> dict[str, Int8Weight]:
    """Read the INT8 weights next to a checkpoint, by layer; empty if there are none.

    Raises:
        ModelError: The file is damaged, or belongs to another checkpoint than ``weights``.
        InputError: It is not the file that the ``manifest.json`` next to it records.

    Example:
        >>> load_int8(Path("no_int8.safetensors"))
        {}
    """
    path = _int8_path(weights)
    if not path.is_file():
        return {}
    verified_digest(path)
    tensors, metadata = _load_safetensors(path)
    if metadata.get("weights_sha256") != sha256(weights):
        raise ModelError(f"{path} belongs to other weights than {weights.name}", "Remove it, or prune again.")
    names = dict.fromkeys(name.rpartition(".")[0] for name in tensors)
    try:
        return {name: Int8Weight(*(tensors[f"{name}.{part}"] for part in _PARTS)) for name in names}
    except KeyError as error:
        raise ModelError(f"{path} has no {error.args[0]}", "Remove it, or prune again.") from error


def _int8_path(weights: Path) -> Path:
    return weights.with_suffix(".int8.safetensors")
