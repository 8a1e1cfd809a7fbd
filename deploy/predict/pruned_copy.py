"""Makes a pruned copy of an ONNX model, to time sparse kernels before the real pruning."""

from __future__ import annotations

__all__ = ["magnitude_copy", "magnitude_mask"]

import math
from itertools import combinations
from typing import Any, Dict, List, Optional, Tuple

import numpy as np
import numpy.typing as npt

from deploy.machine import require
from sparsegpt_core.patterns import NM

_SAME_AXES = frozenset({"Cast", "CastLike", "DequantizeLinear", "Identity", "QuantizeLinear"})


def magnitude_copy(model: Any, pattern: Optional[NM] = None) -> Any:
    """Return a copy of a model that keeps the largest magnitudes of each group of weights.

    The copy's outputs are wrong, but its engine is as fast as that of a well pruned model. The copy prunes the weights
    that TensorRT can run on sparse kernels: constant weights of convolutions along C, and of Gemm and MatMul along the
    reduction axis. Weights that reach their layer through a Reshape stay dense.

    Args:
        model: An ``onnx.ModelProto`` with its weights; FP32, FP16 or Q/DQ.
        pattern: The N:M pattern; None for 2:4.
    """
    numpy_helper = require("onnx").numpy_helper
    from export.audit import audit_model

    pattern = pattern or NM(2, 4)
    copy = type(model)()
    copy.CopyFrom(model)
    producers = {output: node for node in copy.graph.node for output in node.output}
    tensors = _constants(copy.graph)
    layers = {
        layer.name: layer for layer in audit_model(model, pattern).layers if layer.violations and layer.groups == 1
    }
    for node in copy.graph.node:
        layer = layers.get(node.name or node.output[0])
        if layer is None or layer.op != node.op_type or layer.op == "ConvTranspose":
            continue
        name, axis = _trace(node.input[1], layer.axis, producers)
        if name in tensors:
            weight = numpy_helper.to_array(tensors[name])
            pruned = np.where(magnitude_mask(weight, pattern, axis), weight, np.zeros_like(weight))
            tensors[name].CopyFrom(numpy_helper.from_array(pruned, tensors[name].name))
    return copy


def magnitude_mask(weight: npt.NDArray[Any], pattern: NM, axis: int) -> npt.NDArray[np.bool_]:
    """Mark the N largest magnitudes of every M entries along ``axis``; the first of equal entries wins.

    This is the rule of :func:`~sparsegpt_core.solvers.magnitude`, without torch.

    Args:
        weight: Any shape; its ``axis`` must be a multiple of M long.
        pattern: The N:M pattern.
        axis: The axis the groups run along.
    """
    inner = math.prod(weight.shape[axis % weight.ndim + 1 :])
    groups = np.abs(weight.astype(np.float32)).reshape(-1, pattern.m, inner)  # (groups before axis, M, inner)
    # How many others of its group each entry beats. Comparing all pairs is many times faster than sorting short rows.
    beaten = np.zeros(groups.shape, dtype=np.uint8 if pattern.m < 256 else np.int64)
    for first, second in combinations(range(pattern.m), 2):
        wins = groups[:, first] >= groups[:, second]
        beaten[:, first] += wins
        beaten[:, second] += ~wins
    return (beaten >= pattern.m - pattern.n).reshape(weight.shape)


def _constants(graph: Any) -> Dict[str, Any]:
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            tensors.update((node.output[0], each.t) for each in node.attribute if each.name == "value")
    return tensors


def _trace(name: str, axis: int, producers: Dict[str, Any]) -> Tuple[str, int]:
    """Follow a weight to the tensor that stores it; return that tensor's name and the weight's axis in it."""
    node = producers.get(name)
    while node is not None and node.op_type in _SAME_AXES | {"Transpose"}:
        if node.op_type == "Transpose":
            permutation: List[int] = next((list(each.ints) for each in node.attribute if each.name == "perm"), [])
            axis = permutation[axis] if permutation else -1 - axis
        name = node.input[0]
        node = producers.get(name)
    return name, axis
