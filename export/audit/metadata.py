"""Stores metadata in an ONNX model: pattern, method, source, and why layers are dense."""

from __future__ import annotations

import json
from typing import Any

import onnx

__all__ = ["read_metadata", "write_metadata"]

_KEY = "sparsegpt_trt"


def write_metadata(model: onnx.ModelProto, metadata: dict[str, Any]) -> None:
    """Store metadata in the model. It replaces the metadata of an earlier call.

    Args:
        model: The model; changed in place.
        metadata: The metadata, JSON-able.

    Example:
        >>> model = onnx.ModelProto()
        >>> write_metadata(model, {"pattern": "2:4"})
        >>> read_metadata(model)
        {'pattern': '2:4'}
    """
    others = [(entry.key, entry.value) for entry in model.metadata_props if entry.key != _KEY]
    del model.metadata_props[:]
    for key, value in (*others, (_KEY, json.dumps(metadata, sort_keys=True))):
        model.metadata_props.add(key=key, value=value)


def read_metadata(model: onnx.ModelProto) -> dict[str, Any]:
    """Return the metadata that :func:`write_metadata` stored; empty for models of other tools.

    Example:
        >>> read_metadata(onnx.ModelProto())
        {}
    """
    for entry in model.metadata_props:
        if entry.key == _KEY:
            try:
                content = json.loads(entry.value)
            except (ValueError, RecursionError):
                return {}
            return content if isinstance(content, dict) else {}
    return {}
