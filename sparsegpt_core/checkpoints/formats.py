"""Reads safetensors and .pt files without running code in them."""

from __future__ import annotations

import json
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from sparsegpt_core.errors import InputError, ModelError
from sparsegpt_core.files import METADATA_KEY, atomic_path, check_model_metadata


def _save(path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    owners = {value.untyped_storage().data_ptr(): name for name, value in tensors.items()}
    for name, value in tensors.items():
        if owners[value.untyped_storage().data_ptr()] != name:  # the format has no shared tensors
            tensors[name] = value.clone()
    text = json.dumps(dict(metadata), allow_nan=False)
    with atomic_path(path) as temporary:
        mode = temporary.stat().st_mode
        try:
            safetensors.torch.save_file(tensors, temporary, {METADATA_KEY: text})
        except safetensors.SafetensorError as error:
            raise InputError(
                f"cannot write {path}: {error}", "Give a folder you may write to, with space left."
            ) from error
        temporary.chmod(mode)  # safetensors lets only the owner read it


def _is_safetensors(path: Path) -> bool:
    """Tell the format by the content, which may have the other format's name; by the name if it has neither."""
    with path.open("rb") as file:
        head = file.read(9)
    return head[8:] == b"{" or (path.suffix == ".safetensors" and not head.startswith(b"PK"))


def _load_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = json.loads((file.metadata() or {}).get(METADATA_KEY, "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, ValueError, OSError, RecursionError) as error:
        raise ModelError(f"{path} is truncated or not a safetensors file: {error}") from error
    return tensors, check_model_metadata(metadata, path)


def _load_pickle(path: Path) -> Any:
    """Read a .pt file, of any content but code."""
    try:
        with warnings.catch_warnings(), path.open("rb") as file:  # of a path, torch.load would read the suffix
            warnings.simplefilter("ignore")  # about old pickle protocols; errors are raised
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path} contains more than tensors, or is damaged; it was not loaded",
            "Save model.state_dict() alone: torch.save(model.state_dict(), FILE).",
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        if "TorchScript" in str(error):
            raise ModelError(
                f"{path} is a TorchScript archive, not a checkpoint",
                "Save its state dict: torch.save(torch.jit.load(FILE).state_dict(), NEW_FILE).",
            ) from error
        raise ModelError(f"{path} is truncated or not a PyTorch checkpoint", "Copy it or save it again.") from error


def _check_in_memory(state: Mapping[str, Tensor], path: Path) -> None:
    """Raise ModelError if a tensor is sparse or quantised, or its numbers are not in memory."""
    unusable = next((name for name, value in state.items() if not _is_in_memory(value)), None)
    if unusable is not None:
        raise ModelError(
            f"{path}: {unusable} is sparse, quantised, or claims more numbers than the file contains",
            "Save dense tensors: value.dequantize(), value.to_dense() or value.contiguous().",
        )


def _is_in_memory(value: Tensor) -> bool:
    """Whether all numbers of a tensor are in memory, contiguous or strided."""
    is_strided = value.layout is torch.strided and value.device.type == "cpu" and not value.is_quantized
    return is_strided and value.untyped_storage().nbytes() >= value.nbytes
