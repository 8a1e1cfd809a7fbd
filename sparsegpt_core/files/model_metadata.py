"""Checks the metadata about a model in a checkpoint or ONNX file, which may come from anyone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sparsegpt_core.errors import ModelError

__all__ = ["METADATA_KEY", "check_model_metadata", "read_checkpoint_metadata"]

METADATA_KEY = "sparsegpt_trt"
"""The key of the metadata in a ``.safetensors`` file, whose value is JSON."""

_INPUT_TYPES = ("float32", "bool", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)))

# Larger values are damage, and such a model may not fit into memory.
_MAX_CLASSES, _MAX_IMAGE_SIDE_PIXELS, _MAX_NORMALISATION = 100_000, 1 << 16, 1e6


def check_model_metadata(metadata: Any, source: object) -> dict[str, Any]:
    """Return the metadata, whose known keys must have the types that this program writes; null counts as absent.

    Args:
        metadata: The content, from JSON.
        source: The file, for messages.

    Raises:
        ModelError: The metadata is not a JSON object, or a known key has another type.

    Example:
        >>> check_model_metadata({"model": "simple_cnn", "pattern": None}, "sparse.safetensors")
        {'model': 'simple_cnn'}
    """
    hint = "The file is damaged, or from another program."
    if not isinstance(metadata, dict):
        raise ModelError(f"the metadata of {source} is not a JSON object", hint)
    given = {key: value for key, value in metadata.items() if value is not None or key not in _CHECKS}
    wrong = next((key for key, is_valid in _CHECKS.items() if key in given and not is_valid(given[key])), None)
    if wrong:
        raise ModelError(f"the metadata of {source} has an invalid {wrong}: {str(given[wrong])[:60]!r}", hint)
    return given


def read_checkpoint_metadata(path: Path) -> dict[str, Any]:
    """Return the metadata of a ``.safetensors`` file without its tensors; empty for files of other programs.

    Raises:
        ModelError: The file is damaged or cannot be read.

    Example:
        >>> import safetensors.numpy
        >>> import numpy as np
        >>> safetensors.numpy.save_file({"w": np.ones(4)}, "net.safetensors", {METADATA_KEY: '{"pattern": "2:4"}'})
        >>> read_checkpoint_metadata(Path("net.safetensors"))
        {'pattern': '2:4'}
    """
    import safetensors  # only reports of runs need it: deploy works without

    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = json.loads((file.metadata() or {}).get(METADATA_KEY, "{}"))
    except (safetensors.SafetensorError, ValueError, OSError, RecursionError) as error:
        raise ModelError(f"{path} is truncated or not a safetensors file: {error}") from error
    return check_model_metadata(metadata, path)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and abs(value) <= _MAX_NORMALISATION  # false for NaN


def _is_size(largest: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and 0 < value <= largest


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_list_of(is_valid: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(is_valid, value))


def _is_image(value: Any) -> bool:
    return _is_list_of(_is_size(_MAX_IMAGE_SIDE_PIXELS))(value) and len(value) == 3


def _is_input(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and _is_text(value.get("name"))
        and _is_list_of(_is_size(_MAX_IMAGE_SIDE_PIXELS))(value.get("shape"))
        and value.get("dtype") in _INPUT_TYPES
    )


_CHECKS: dict[str, Callable[[Any], bool]] = {
    "model": _is_text,
    "data": _is_text,
    "pattern": _is_text,
    "pruned": _is_list_of(_is_text),
    "image": _is_image,
    "inputs": _is_list_of(_is_input),
    "model_args": _is_list_of(_is_text),
    "source_key": _is_text,
    "num_classes": _is_size(_MAX_CLASSES),
    "mean": _is_list_of(_is_number),
    "std": _is_list_of(_is_number),
}
