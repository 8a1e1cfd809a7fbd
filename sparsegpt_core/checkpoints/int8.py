"""The INT8 weights that lie beside a checkpoint."""

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


def save_int8(weights: Path, integers: Mapping[str, Int8Weight]) -> Path:
    """Write a checkpoint's INT8 weights beside it, as ``NAME.int8.safetensors``, and return where.

    Raises:
        InputError: The file cannot be written.
    """
    tensors = {f"{name}.{part}": getattr(each, part) for name, each in integers.items() for part in _PARTS}
    path = _integers_path(weights)
    _save(path, tensors, {"weights_sha256": sha256(weights)})
    return path


def load_int8(weights: Path) -> dict[str, Int8Weight]:
    """Read the INT8 weights that were saved beside a checkpoint; none where there are none.

    Raises:
        ModelError: The file is damaged, or of other weights than those that are there now.
        InputError: It is not the file that a ``manifest.json`` beside it records.
    """
    path = _integers_path(weights)
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
        raise ModelError(f"{path} holds no {error.args[0]}", "Remove it, or prune again.") from error


def _integers_path(weights: Path) -> Path:
    return weights.with_suffix(".int8.safetensors")
