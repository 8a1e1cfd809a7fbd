"""What we write into an ONNX file about itself: pattern, method, source, and why layers are dense."""

from __future__ import annotations

import json
from typing import Any

import onnx

__all__ = ["read_metadata", "write_metadata"]

_KEY = "sparsegpt_trt"


def write_metadata(model: onnx.ModelProto, metadata: dict[str, Any]) -> None:
    """Store ``metadata`` (JSON-able) in the model, in place of what an earlier call stored."""
    others = [(entry.key, entry.value) for entry in model.metadata_props if entry.key != _KEY]
    del model.metadata_props[:]
    for key, value in (*others, (_KEY, json.dumps(metadata, sort_keys=True))):
        model.metadata_props.add(key=key, value=value)


def read_metadata(model: onnx.ModelProto) -> dict[str, Any]:
    """Return what :func:`write_metadata` stored; empty for a foreign model."""
    for entry in model.metadata_props:
        if entry.key == _KEY:
            try:
                content = json.loads(entry.value)
            except (ValueError, RecursionError):
                return {}
            return content if isinstance(content, dict) else {}
    return {}
