"""Weights on disk: safetensors with metadata, or a ``.pt`` that is never trusted with code."""

from __future__ import annotations

import json
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from sparsegpt_core.artifacts import sha256, write_bytes
from sparsegpt_core.errors import ModelError
from sparsegpt_core.joint_quant import IntegerWeight
from sparsegpt_core.modules import check_finite
from sparsegpt_core.noted import check_noted
from sparsegpt_core.recorded import recorded_digest

__all__ = [
    "Checkpoint",
    "check_fit",
    "load_checkpoint",
    "load_integers",
    "load_into",
    "save_checkpoint",
    "save_integers",
]

_KEY = "sparsegpt_trt"
_PARTS = tuple(part.name for part in fields(IntegerWeight))
_WRAPPERS = ("state_dict", "model_state_dict", "model")


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


def save_integers(weights: Path, integers: Mapping[str, IntegerWeight]) -> Path:
    """Write a checkpoint's INT8 weights beside it, as ``NAME.int8.safetensors``, and return where.

    Raises:
        InputError: The file cannot be written.
    """
    tensors = {f"{name}.{part}": getattr(each, part) for name, each in integers.items() for part in _PARTS}
    path = _integers_path(weights)
    _save(path, tensors, {"weights_sha256": sha256(weights)})
    return path


def load_integers(weights: Path) -> dict[str, IntegerWeight]:
    """Read the INT8 weights that were saved beside a checkpoint; none where there are none.

    Raises:
        ModelError: The file is damaged, or of other weights than those that are there now.
        InputError: It is not the file that a ``manifest.json`` beside it records.
    """
    path = _integers_path(weights)
    if not path.is_file():
        return {}
    recorded_digest(path)
    tensors, metadata = _load_safetensors(path)
    if metadata.get("weights_sha256") != sha256(weights):
        raise ModelError(f"{path} belongs to other weights than {weights.name}", "Remove it, or prune again.")
    names = dict.fromkeys(name.rpartition(".")[0] for name in tensors)
    try:
        return {name: IntegerWeight(*(tensors[f"{name}.{part}"] for part in _PARTS)) for name in names}
    except KeyError as error:
        raise ModelError(f"{path} holds no {error.args[0]}", "Remove it, or prune again.") from error


def load_checkpoint(path: Path) -> Checkpoint:
    """Read ``.safetensors``, or a ``.pt`` or ``.pth`` that holds nothing but tensors.

    Raises:
        ModelError: The file is missing, truncated, of another kind, or would run code when loaded.
        InputError: It is not the file that a ``manifest.json`` beside it records.
        NumericsError: A tensor holds NaN or infinity.
    """
    if not path.is_file():
        raise ModelError(f"no checkpoint at {path}", "Give a .safetensors or .pt file to --weights.")
    digest = recorded_digest(path)
    if path.suffix == ".safetensors":
        state, metadata = _load_safetensors(path)
    else:
        state, metadata = _load_pickle(path), {}
    check_finite(state)
    return Checkpoint(state, digest, metadata)


def load_into(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load weights into a network that they fit exactly.

    Raises:
        ModelError: As :func:`check_fit`.
        NumericsError: A number is too large for the network's precision.
    """
    check_fit(model, state)
    model.load_state_dict(dict(state))
    check_finite(model.state_dict())


def check_fit(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Compare weights with a network, which may be on the meta device.

    Raises:
        ModelError: Names the first tensor that is missing, left over, of another shape or kind of number.
    """
    own = model.state_dict()
    problem = next((f"it has no {name}" for name in own if name not in state), None)
    problem = problem or next((f"it has {name}, the model has not" for name in state if name not in own), None)
    problem = problem or next(
        (
            f"its {name} has shape {tuple(state[name].shape)}, the model's {tuple(value.shape)}"
            for name, value in own.items()
            if state[name].shape != value.shape
        ),
        None,
    )
    problem = problem or next(
        (
            f"its {name} has dtype {state[name].dtype}, the model's {value.dtype}"
            for name, value in own.items()
            if state[name].is_floating_point() != value.is_floating_point() or state[name].is_complex()
        ),
        None,
    )
    if problem:
        raise ModelError(
            f"the checkpoint does not fit the model: {problem}", "Check --model, --data and --num-classes."
        )


def _integers_path(weights: Path) -> Path:
    return weights.with_suffix(".int8.safetensors")


def _save(path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
    write_bytes(path, safetensors.torch.save(tensors, {_KEY: json.dumps(dict(metadata), allow_nan=False)}))


def _load_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = json.loads((file.metadata() or {}).get(_KEY, "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, ValueError, OSError, RecursionError) as error:
        raise ModelError(f"{path} is truncated or no safetensors file: {error}") from error
    return tensors, check_noted(metadata, path)


def _load_pickle(path: Path) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about old pickle protocols; what matters raises
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path} holds more than tensors, or is damaged; it was not loaded",
            "Save model.state_dict() alone: torch.save(model.state_dict(), FILE).",
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ModelError(f"{path} is truncated or no PyTorch checkpoint", "Copy it again, or save it anew.") from error
    for wrapper in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    tensors = isinstance(content, dict) and content and all(isinstance(value, Tensor) for value in content.values())
    if not tensors:
        raise ModelError(f"{path} holds no state dict", "Save model.state_dict() alone.")
    odd = next((name for name, value in content.items() if not _plain(value)), None)
    if odd is not None:
        raise ModelError(
            f"{path}: {odd} is sparse, quantised, or claims more numbers than the file holds",
            "Save plain tensors: value.dequantize(), value.to_dense() or value.contiguous().",
        )
    return {str(name).removeprefix("module."): value for name, value in content.items()}


def _plain(value: Tensor) -> bool:
    """Tell whether a tensor's numbers are all in memory, one after another or strided."""
    held = value.layout is torch.strided and value.device.type == "cpu" and not value.is_quantized
    return held and value.untyped_storage().nbytes() >= value.nbytes
