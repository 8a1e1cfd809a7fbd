"""Finds the weights in the content of a .pt file, which may hold several state dicts: raw and averaged, say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from sparsegpt_core.errors import ModelError

__all__ = ["pick_state"]

_USUAL = ("state_dict", "model_state_dict", "model")  # the raw weights, which are taken first
_MAX_DEPTH = 2  # deeper dicts of tensors belong to optimizers


def pick_state(content: Any, path: Path, key: str | None = None) -> tuple[dict[str, Tensor], str, tuple[str, ...]]:
    """Return the weights, the name of their entry, and the names of the other entries that hold weights.

    Args:
        content: What the file contains.
        path: The file, for messages.
        key: The entry to take, such as ``model_ema``; None: the usual one, or the only one. Dots lead into dicts.

    Raises:
        ModelError: There is no such entry, or none can be chosen.

    Example:
        >>> import torch
        >>> weights = {"weight": torch.ones(2)}
        >>> pick_state({"model": weights, "model_ema": weights, "epoch": 3}, Path("net.pt"))[1:]
        ('model', ('model_ema',))
    """
    found = dict(_state_dicts(content, ""))
    names = ", ".join(found)
    if not found:
        raise ModelError(f"{path} does not contain a state dict", "Save model.state_dict() alone.")
    if key is not None and key not in found:
        if "" in found:
            raise ModelError(f"{path} has no entry '{key}': it is one state dict", "Leave `weights_key` out.")
        raise ModelError(f"{path} has no state dict '{key}'", f"Give `weights_key` one of {names}.")
    usual = sorted(filter(_is_usual, found), key=lambda name: [_USUAL.index(part) for part in name.split(".")])
    chosen = key if key is not None else next(iter([*usual, *found])) if usual or len(found) == 1 else None
    if chosen is None:
        raise ModelError(f"{path} contains several state dicts: {names}", "Choose one with `weights_key`.")
    return found[chosen], chosen, tuple(name for name in found if name != chosen)


def _is_usual(name: str) -> bool:
    return all(part in _USUAL for part in name.split("."))


def _state_dicts(content: Any, name: str) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Give each dict that contains tensors alone, with its dotted name; the name of the content itself is empty."""
    if not isinstance(content, Mapping) or not content:
        return
    if all(isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()):
        yield name, dict(content)
    elif name.count(".") < _MAX_DEPTH - 1 or not name:
        for key, value in content.items():
            if isinstance(key, str):
                yield from _state_dicts(value, f"{name}.{key}" if name else key)
