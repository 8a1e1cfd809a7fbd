"""The largest gain of sparse tensor cores, and the layers that are too small for it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from export.audit import AuditedLayer

__all__ = ["ceiling", "is_small"]

_MIN_CHANNELS = 256  # with fewer channels dense kernels are as fast: NVIDIA/TensorRT issues 3849 and 4065


def ceiling(share: float) -> float:
    """Return the largest speed-up: sparse tensor cores halve the eligible ``share`` (0 to 1) of the time.

    Example:
        >>> ceiling(0.5)
        1.3333333333333333
    """
    return 1 / (1 - share / 2)


def is_small(layer: AuditedLayer) -> bool:
    """Return whether a layer has too few channels for sparse kernels to be faster.

    Kernel positions count as input channels, so a 3×3 kernel counts its input channels nine times.

    Example:
        >>> is_small(audit_model(Path("sparse.onnx")).layers[0])  # doctest: +SKIP
        True
    """
    if layer.shape is None or not layer.shape:
        return False
    matrix = layer.op == "MatMul" or (layer.op == "Gemm" and layer.axis == 0)
    outputs = layer.shape[-1] if matrix else layer.shape[0]
    inputs = layer.shape[layer.axis] if matrix else math.prod(layer.shape[1:])
    return min(inputs, outputs) < _MIN_CHANNELS
