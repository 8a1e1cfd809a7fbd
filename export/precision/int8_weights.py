"""INT8 weights of graph nodes: rounded here, or taken from the INT8 solver and scaled as the exporter scaled them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sparsegpt_core.errors import CheckFailedError, NumericsError
from sparsegpt_core.network import Int8Weight
from sparsegpt_core.solvers import grid_scales

__all__ = ["Int8NodeWeight", "int8_weight_for_node", "round_to_int8"]

Array = npt.NDArray[Any]

_MAX_STEP_DIFFERENCE = 0.01  # integer steps between a node's weight and the module's weight times its factors
_MIN_SCALE = float(np.finfo(np.float32).tiny)
_HINT = "Give the state of the network that the graph was exported from."


@dataclass(frozen=True)
class Int8NodeWeight:
    """A weight in the node's layout: scale · integer, zero point 0."""

    values: Array
    """The integers, int8, in the weight's shape."""
    scales: Array
    """The size of an integer step for each output channel, (K,), positive float32."""
    shift: Array | None = None
    """What to add to the node's outputs, (K,); None for nothing."""


def round_to_int8(weight: Array, axis: int, name: str) -> Int8NodeWeight:
    """Round a weight to nearest. The scale of each output channel minimises the squared error.

    Args:
        weight: The node's weight, float32.
        axis: The axis of the output channels.
        name: The layer's name in messages.

    Raises:
        NumericsError: The weight contains NaN or infinity.
    """
    if not np.isfinite(weight).all():
        raise NumericsError(f"the weight of {name} contains NaN or infinity", "Train the model to the end.")
    rows = torch.tensor(_rows(weight, axis))  # (K, d)
    scales = grid_scales(rows, torch.ones(rows.shape[1])).clamp_min(_MIN_SCALE)
    values = (rows / scales[:, None]).round_().clamp_(-127, 127).to(torch.int8)
    return Int8NodeWeight(_like(values.numpy(), weight, axis), scales.numpy())


def int8_weight_for_node(
    int8_weight: Int8Weight, exported: torch.Tensor, weight: Array, axis: int, name: str
) -> Int8NodeWeight:
    """Turn a module's INT8 weight into that of its node. The exporter may have scaled the node's output channels.

    A folded batch norm multiplies channel k by a factor f_k of either sign. f_k is fitted to weight = f_k · exported.
    Its sign goes to the integers, its magnitude to the scale, and the shift is multiplied by f_k.

    Args:
        int8_weight: The module's INT8 weight (K, ...).
        exported: The module's weight at the time of the export, (K, ...).
        weight: The node's weight. Its zeros stay zero.
        axis: The axis of the output channels in ``weight``.
        name: The layer's name in messages.

    Raises:
        CheckFailedError: The node's weight is not the module's weight times such factors, or an integer is not zero
            where the weight is.
    """
    rows = _rows(weight, axis).astype(np.float64)  # (K, d)
    module, values = (each.detach().cpu().reshape(len(each), -1).numpy() for each in (exported, int8_weight.values))
    scales, shift = (each.detach().cpu().double().numpy() for each in (int8_weight.scales, int8_weight.shift))
    if not rows.shape == module.shape == values.shape:
        raise CheckFailedError(f"{name}: the graph's weight has another shape than the module's", _HINT)
    factors = _factors(rows, module.astype(np.float64))  # (K,)
    allowed = _MAX_STEP_DIFFERENCE * np.abs(factors * scales)[:, None]
    if not (np.abs(rows - factors[:, None] * module) <= allowed).all():
        raise CheckFailedError(f"{name}: the graph's weight is not the module's with a batch norm folded", _HINT)
    if values[module == 0].any():
        raise CheckFailedError(f"{name}: a pruned weight is not zero in INT8", "Round within the pruning mask.")
    signed = values * np.sign(factors)[:, None].astype(np.int8)
    scale = np.where(factors == 0, 1, np.abs(factors) * scales).astype(np.float32)
    return Int8NodeWeight(
        _like(signed, weight, axis), np.maximum(scale, np.float32(_MIN_SCALE)), (factors * shift).astype(np.float32)
    )


def _factors(rows: Array, module: Array) -> Array:
    """Return the least-squares factor of each row (K,), 0 for a row of zeros."""
    energy: Array = np.square(module).sum(axis=1)
    factors: Array = (rows * module).sum(axis=1) / np.where(energy > 0, energy, 1)
    return factors


def _rows(weight: Array, axis: int) -> Array:
    """Return the weight as (K, d)."""
    rows = np.moveaxis(weight, axis, 0)
    return np.ascontiguousarray(rows.reshape(len(rows), -1))


def _like(rows: Array, weight: Array, axis: int) -> Array:
    """Return rows (K, d) in the weight's shape."""
    moved = np.moveaxis(weight, axis, 0).shape
    return np.ascontiguousarray(np.moveaxis(rows.reshape(moved), 0, axis))
