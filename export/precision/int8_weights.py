"""Weights as INT8: rounded here, or found by the joint solver and carried over to what the exporter folded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sparsegpt_core.errors import CheckFailedError, NumericsError
from sparsegpt_core.network import Int8Weight
from sparsegpt_core.solvers import grid_scales

__all__ = ["Int8GraphWeight", "carry_over", "round_to_nearest"]

Array = npt.NDArray[Any]

_TOLERANCE = 0.01  # of an integer step, between a graph's weight and the module's times its factors
_LEAST = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Int8GraphWeight:
    """A weight in the graph's layout: scale · integer, zero point 0.

    ``values`` are int8, of the weight's shape; ``scales`` (K,) are positive float32; ``shift`` (K,), None where
    nothing is to be shifted, is to be added to the node's outputs.
    """

    values: Array
    scales: Array
    shift: Array | None = None


def round_to_nearest(weight: Array, axis: int, name: str) -> Int8GraphWeight:
    """Round to nearest, with a scale for each output channel that is chosen by error.

    Args:
        weight: Float32, output channels along ``axis``.
        axis: See above.
        name: The layer, for messages.

    Raises:
        NumericsError: The weight holds NaN or infinity.
    """
    if not np.isfinite(weight).all():
        raise NumericsError(f"the weight of {name} holds NaN or infinity", "Give a model that was trained to the end.")
    rows = torch.tensor(_rows(weight, axis))
    scales = grid_scales(rows, torch.ones(rows.shape[1])).clamp_min(_LEAST)
    values = (rows / scales[:, None]).round_().clamp_(-127, 127).to(torch.int8)
    return Int8GraphWeight(_like(values.numpy(), weight, axis), scales.numpy())


def carry_over(integer: Int8Weight, exported: torch.Tensor, weight: Array, axis: int, name: str) -> Int8GraphWeight:
    """Turn a module's integers into those of its node, whose output channels the exporter may have multiplied.

    Folding a batch norm gives channel k the factor f_k of any sign: f_k is fitted to weight = f_k · exported, the
    sign goes to the integers, the size to the scale, and the shift is multiplied as the outputs are.

    Args:
        integer: Of the module's weight (K, ...).
        exported: The module's weight when it was exported, (K, ...).
        weight: The node's, output channels along ``axis``; its zeros stay zero.
        axis: See above.
        name: The layer, for messages.

    Raises:
        CheckFailedError: The node's weight is not the module's times such factors, or an integer is not zero where
            the weight is.
    """
    rows = _rows(weight, axis).astype(np.float64)
    module, values = (each.detach().cpu().reshape(len(each), -1).numpy() for each in (exported, integer.values))
    scales, shift = (each.detach().cpu().double().numpy() for each in (integer.scales, integer.shift))
    if not rows.shape == module.shape == values.shape:
        raise CheckFailedError(f"{name}: the graph's weight has another shape than the module's", _HINT)
    factors = _factors(rows, module.astype(np.float64))
    if not (np.abs(rows - factors[:, None] * module) <= _TOLERANCE * np.abs(factors * scales)[:, None]).all():
        raise CheckFailedError(f"{name}: the graph's weight is not the module's with a batch norm folded", _HINT)
    if values[module == 0].any():
        raise CheckFailedError(f"{name}: a pruned weight is not zero in INT8", "Quantise within the pruning mask.")
    signed = values * np.sign(factors)[:, None].astype(np.int8)
    scale = np.where(factors == 0, 1, np.abs(factors) * scales).astype(np.float32)
    return Int8GraphWeight(
        _like(signed, weight, axis), np.maximum(scale, np.float32(_LEAST)), (factors * shift).astype(np.float32)
    )


_HINT = "Give the state of the very network that the graph was exported from."


def _factors(rows: Array, module: Array) -> Array:
    """The least-squares factor of each row, 0 for a row of zeros."""
    energy: Array = np.square(module).sum(axis=1)
    factors: Array = (rows * module).sum(axis=1) / np.where(energy > 0, energy, 1)
    return factors


def _rows(weight: Array, axis: int) -> Array:
    rows = np.moveaxis(weight, axis, 0)
    return np.ascontiguousarray(rows.reshape(len(rows), -1))


def _like(rows: Array, weight: Array, axis: int) -> Array:
    moved = np.moveaxis(weight, axis, 0).shape
    return np.ascontiguousarray(np.moveaxis(rows.reshape(moved), 0, axis))
