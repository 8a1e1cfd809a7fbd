"""Prune one layer: from its inputs to its new weight, errors and warnings."""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sparsegpt_core.activations import LayerDemand, Source
from sparsegpt_core.errors import InputError
from sparsegpt_core.execution import World
from sparsegpt_core.network import Int8Weight, Layer, matrix_to_weight, weight_to_matrix
from sparsegpt_core.patterns import Pattern
from sparsegpt_core.progress import timed
from sparsegpt_core.pruning.layer_moments import gather_moments
from sparsegpt_core.pruning.layer_store import LayerOutcome
from sparsegpt_core.settings import PruneSettings
from sparsegpt_core.solvers import Solution, magnitude, match_outputs, solve
from sparsegpt_core.statistics import Moments, OutputStatistics

__all__ = ["Calibration", "match_grouped_layer", "prune_by_magnitude", "prune_with_calibration"]


@dataclass(frozen=True)
class Calibration:
    """Where the moments of every layer come from."""

    source: Source
    """Delivers the inputs of one layer after the other."""
    demand: LayerDemand
    """The demand that the source was opened with."""
    world: World
    """The processes that share samples and rows."""
    seconds: dict[str, float]
    """Receives the time of ``statistics`` and ``solve``."""


def prune_by_magnitude(layer: Layer, pattern: Pattern) -> LayerOutcome:
    """Prune a layer by the magnitude of its weights, without calibration."""
    start, weight = time.perf_counter(), layer.prunable.weight
    sparse = magnitude(weight_to_matrix(weight.float()), pattern)  # (K, d)
    return LayerOutcome(matrix_to_weight(sparse, layer.shape).to(weight.dtype), measured=_since(start))


def prune_with_calibration(
    layer: Layer, pattern: Pattern, settings: PruneSettings, calibration: Calibration, *, int8_weights: bool
) -> LayerOutcome:
    """Prune a layer with SparseGPT on the moments of its inputs.

    Raises:
        NumericsError: NaN or infinity in its inputs, or a Hessian that cannot be damped.
        InputError: The GPU's memory is too small to solve the layer.
    """
    start, weight = time.perf_counter(), layer.prunable.weight
    moments, held_out = gather_moments(
        layer,
        calibration.source,
        calibration.demand,
        centred=settings.bias and layer.shift_target is not None,
        positions_per_column=settings.positions_per_column,
        world=calibration.world,
        seconds=calibration.seconds,
    )
    with timed(calibration.seconds, "solve"):
        try:
            solution = solve(
                layer.scaled_matrix,  # (K, d)
                moments,
                replace(settings, pattern=pattern),
                layer.name,
                calibration.world,
                held_out,
                int8_weights=int8_weights,
            )
        except torch.OutOfMemoryError as error:  # smaller batches would not help
            columns = math.prod(layer.shape[1:])
            raise InputError(
                f"{layer.name}: the GPU's memory is too small to solve a layer with {columns} columns",
                "Lower `memory_limit`, which moves activations off the GPU, `exclude` that layer, or use `device=cpu`.",
            ) from error
    scale = torch.ones_like(solution.matrix[:, 0]) if layer.output_scale is None else layer.output_scale  # (K,)
    int8_weight = solution.int8_weight
    if int8_weight is not None:
        values = matrix_to_weight(int8_weight.values, layer.shape)
        int8_weight = Int8Weight(values, int8_weight.scales / scale, int8_weight.shift / scale)
    return LayerOutcome(
        weight=matrix_to_weight(solution.matrix / scale[:, None], layer.shape).to(weight.dtype),
        absorbed=_absorbed(layer, None if solution.shift is None else solution.shift / scale),
        int8_weight=int8_weight,
        measured=_measured(moments, held_out, solution) | _since(start),
        warnings=_warnings(layer, moments, solution),
    )


def match_grouped_layer(layer: Layer, settings: PruneSettings, calibration: Calibration) -> LayerOutcome:
    """Give the outputs of a grouped convolution, which stays dense, their mean and variance in the dense network.

    Raises:
        NumericsError: NaN or infinity in its outputs.
    """
    start, weight = time.perf_counter(), layer.prunable.weight
    statistics = OutputStatistics(layer.prunable)
    calibration.source.gather(layer, statistics)
    with timed(calibration.seconds, "statistics"):
        calibration.world.add_up(statistics.sums())
        moments = statistics.moments(layer.name)
    shifts = settings.bias and layer.shift_target is not None
    match = match_outputs(moments, shifts=shifts, variance=settings.keeps_variance)
    measured = {
        "relative_error": match.relative_error,
        "inherited_error": match.inherited_error,
        "positions": moments.positions,
        "positions_used": moments.positions,
    }
    growth = match.growth.to(weight.dtype).reshape(-1, *[1] * (weight.ndim - 1))
    return LayerOutcome(weight * growth, _absorbed(layer, match.shift), measured=measured | _since(start))


def _absorbed(layer: Layer, shift: Tensor | None) -> Tensor | None:
    """The new value of the layer's bias or batch-norm mean, which takes up the shift (K,) of its outputs."""
    target = layer.shift_target
    if target is None or shift is None:
        return None
    return target.tensor + target.sign * shift.to(target.tensor.dtype)


def _measured(moments: Moments, held_out: Moments | None, solution: Solution) -> dict[str, Any]:
    """Fields of the layer's :class:`~sparsegpt_core.pruning.LayerResult`."""
    masks: Counter[str] = Counter()
    alphas: Counter[float] = Counter()
    for (mask, alpha), rows in solution.choices.items():
        masks[mask] += rows
        alphas[alpha] += rows
    return {
        "relative_error": solution.relative_error,
        "magnitude_error": solution.magnitude_error,
        "inherited_error": solution.inherited_error,
        "sensitivity": solution.sensitivity,
        "damping": solution.damping,
        "positions": moments.positions + (held_out.positions if held_out else 0),
        "positions_used": moments.used + (held_out.used if held_out else 0),
        "masks": dict(masks) if len(masks) > 1 else None,
        "alphas": dict(alphas) if len(alphas) > 1 else None,
    }


def _warnings(layer: Layer, moments: Moments, solution: Solution) -> tuple[str, ...]:
    columns = math.prod(layer.shape[1:])
    warnings = []
    if solution.damping > solution.wanted_damping:
        warnings.append(
            f"{layer.name}: the Hessian needed a damping of {solution.damping:g} instead of {solution.wanted_damping:g}"
        )
    dead = int((moments.hessian.diagonal() == 0).sum())
    if 2 * dead > columns:
        warnings.append(
            f"{layer.name}: {dead} of {columns} inputs are dead or constant on the calibration images, "
            "so their weights are now 0: calibrate on more images"
        )
    return tuple(warnings)


def _since(start: float) -> dict[str, float]:
    return {"seconds": time.perf_counter() - start}
