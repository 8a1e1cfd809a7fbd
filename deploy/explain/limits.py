"""What sparse tensor cores can gain at most, and for which layers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from export.audit import AuditedLayer

__all__ = ["ceiling", "is_small"]

_MIN_CHANNELS = 256  # fewer, and dense kernels win: NVIDIA/TensorRT issues 3849 and 4065


def ceiling(share: float) -> float:
    """Return the most that sparse tensor cores can gain, which halve the eligible ``share`` (0 to 1) of the time."""
    return 1 / (1 - share / 2)


def is_small(layer: AuditedLayer) -> bool:
    """Say whether a layer has too few channels for sparse kernels to win.

    A 3×3 kernel counts as nine times the input channels; output channels count as they are.
    """
    if layer.shape is None or not layer.shape:
        return False
    matrix = layer.op == "MatMul" or (layer.op == "Gemm" and layer.axis == 0)
    outputs = layer.shape[-1] if matrix else layer.shape[0]
    inputs = layer.shape[layer.axis] if matrix else math.prod(layer.shape[1:])
    return min(inputs, outputs) < _MIN_CHANNELS
