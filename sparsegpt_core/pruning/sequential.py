"""Prune a whole network layer by layer, each calibrated on what the layers pruned before it put out."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor, nn

from sparsegpt_core.activations import LayerDemand, Source, open_source
from sparsegpt_core.errors import CheckFailedError, InputError
from sparsegpt_core.execution import DEFAULT, Resources, device_of, full_precision, with_smaller_batches
from sparsegpt_core.network import (
    Batch,
    Int8Weight,
    Layer,
    as_tensors,
    check_finite,
    eval_mode,
    matrix_to_weight,
    plan_layers,
    split_batches,
    weight_to_matrix,
)
from sparsegpt_core.patterns import NM, Pattern, find_violations
from sparsegpt_core.progress import Progress, silent, timed
from sparsegpt_core.pruning.layer_moments import gather_moments
from sparsegpt_core.pruning.layer_store import LayerOutcome, LayerStore, run_key
from sparsegpt_core.pruning.results import LayerResult, PruneResult
from sparsegpt_core.settings import PruneSettings
from sparsegpt_core.solvers import Solution, magnitude, solve
from sparsegpt_core.statistics import Moments

__all__ = ["LayerResult", "PruneResult", "prune_model"]


def prune_model(
    model: nn.Module,
    batches: Sequence[Batch],
    settings: PruneSettings,
    progress: Progress = silent,
    resources: Resources = DEFAULT,
) -> PruneResult:
    """Prune a network in place.

    Args:
        model: In float32. It runs in eval mode meanwhile: nothing but the pruned weights changes.
        batches: Inputs (N, C, H, W), or tuples of several, on any device; with several processes, this one's share.
        settings: Pattern, method and layers.
        progress: Told of every layer.
        resources: Memory, scratch folder and processes.

    Raises:
        ModelError: Nothing can be pruned, or the model does not take the images.
        NumericsError: NaN or infinity in weights or activations, or a Hessian that cannot be damped.
        InputError: There are no images, or the memory limit is too small.
    """
    if not batches:
        raise InputError("pruning needs calibration images")
    check_finite(model.state_dict())
    tensors = as_tensors(batches)
    with eval_mode(model), torch.no_grad(), full_precision(resources.tf32):
        layers = plan_layers(model, tensors[0][:2], settings)
        folder = resources.finished if resources.world.size == 1 else None
        about = {"settings": asdict(settings), "device": device_of(model), "tf32": resources.tf32}
        key = run_key(model, tensors, about) if folder else ""
        finished = LayerStore(folder, key)

        def run(parts: Sequence[Tensor]) -> PruneResult:
            return _Pruning(model, layers, settings, progress, resources, finished).run(parts)

        if resources.world.size > 1:  # the others would not try again
            return run(tensors)
        result, warnings = with_smaller_batches(run, tensors)
        return replace(result, warnings=(*warnings, *result.warnings))


class _Pruning:
    """One run: what it works with, its clock and its warnings."""

    def __init__(
        self,
        model: nn.Module,
        layers: list[Layer],
        settings: PruneSettings,
        progress: Progress,
        resources: Resources,
        finished: LayerStore,
    ) -> None:
        self._model, self._layers, self._settings = model, layers, settings
        self._progress, self._resources, self._finished = progress, resources, finished
        self._todo = [layer for layer in layers if layer.reason is None]
        self._changes: list[tuple[Tensor, Tensor]] = []  # parameters and buffers, and their new values
        self._integers: dict[str, Int8Weight] = {}
        self._results: dict[str, LayerResult] = {}
        self._seconds: dict[str, float] = {}
        self._warnings: list[str] = []

    def run(self, batches: Sequence[Tensor]) -> PruneResult:
        spilled = 0
        if self._settings.method == "magnitude":
            self._prune_all(None, None)
        else:
            first, samples = self._resources.world.place(sum(map(len, batches)))
            held_out = self._settings.held_out(samples)
            demand = LayerDemand(
                layers=self._todo,
                samples=samples,
                first_sample=first,
                held_out_samples=held_out,
                wants_dense=self._settings.dense,
                widest_admm_columns=self._settings.admm_columns if self._settings.mask in ("admm", "auto") else 0,
            )
            split = split_batches(batches, first, samples - held_out)
            with open_source(self._model, split, demand, self._resources, self._seconds) as source:
                if source.fallback:
                    self._warnings.append(f"one forward pass for each layer: {source.fallback}")
                self._prune_all(source, demand)
                spilled = source.spilled_bytes
        for tensor, value in self._changes:
            tensor.copy_(value)
        return PruneResult(
            layers=tuple(
                self._results.get(layer.name) or _result(layer, layer.module.weight) for layer in self._layers
            ),
            seconds=self._seconds,
            warnings=tuple(self._warnings),
            spilled_bytes=spilled,
            integers=self._integers,
        )

    def _prune_all(self, source: Source | None, demand: LayerDemand | None) -> None:
        owners: dict[int, str] = {}
        self._progress("prune", 0, len(self._todo))
        for layer in self._todo:
            owner = owners.setdefault(id(layer.prunable.weight), layer.name)
            if owner == layer.name:
                self._prune(layer, source, demand)
            else:  # the same parameter under another name
                if owner in self._integers:
                    self._integers[layer.name] = self._integers[owner]
                self._results[layer.name] = replace(self._results[owner], name=layer.name, kind=layer.kind)
            self._progress("prune", len(self._results), len(self._todo))

    def _prune(self, layer: Layer, source: Source | None, demand: LayerDemand | None) -> None:
        parameter = layer.prunable.weight
        outcome = self._finished.load(layer.name)
        if outcome is None:
            outcome = self._solve(layer, source, demand)
            self._finished.save(layer.name, outcome)
        weight = outcome.weight.to(parameter.device)
        _check(layer.name, weight, self._settings.pattern_for(layer.name))
        changes = [(parameter, weight)]
        if layer.shift_target and outcome.absorbed is not None:
            changes.append((layer.shift_target.tensor, outcome.absorbed.to(parameter.device)))
        if source is not None:
            for tensor, value in changes:
                source.set_value(tensor, value)
        self._changes += changes
        if outcome.int8_weight is not None:
            self._integers[layer.name] = outcome.int8_weight
        self._warnings += outcome.warnings
        self._results[layer.name] = _result(layer, weight, **outcome.measured)

    def _solve(self, layer: Layer, source: Source | None, demand: LayerDemand | None) -> LayerOutcome:
        start = time.perf_counter()
        parameter, settings = layer.prunable.weight, self._settings
        settings = replace(settings, pattern=settings.pattern_for(layer.name))
        dense = weight_to_matrix(parameter.float())
        if source is None or demand is None:
            sparse = magnitude(dense, settings.pattern)
            return LayerOutcome(matrix_to_weight(sparse, layer.shape).to(parameter.dtype), measured=_since(start))
        moments, held_out = gather_moments(
            layer,
            source,
            demand,
            centred=settings.bias and layer.shift_target is not None,
            positions_per_column=settings.positions_per_column,
            world=self._resources.world,
            seconds=self._seconds,
        )
        with timed(self._seconds, "solve"):
            solution = solve(dense, moments, settings, layer.name, self._resources.world, held_out)
        shift_target, shift, integers = layer.shift_target, solution.shift, solution.integers
        if integers is not None:
            integers = replace(integers, values=matrix_to_weight(integers.values, layer.shape))
        absorbed = None
        if shift_target and shift is not None:
            absorbed = shift_target.tensor + shift_target.sign * shift.to(shift_target.tensor.dtype)
        return LayerOutcome(
            weight=matrix_to_weight(solution.matrix, layer.shape).to(parameter.dtype),
            absorbed=absorbed,
            int8_weight=integers,
            measured=self._describe(moments, held_out, solution) | _since(start),
            warnings=self._doubts(layer, moments, solution),
        )

    def _doubts(self, layer: Layer, moments: Moments, solution: Solution) -> tuple[str, ...]:
        columns = math.prod(layer.shape[1:])
        wanted = self._settings.damping_for(moments.used, columns)
        doubts = []
        if solution.damping > wanted:
            doubts.append(f"{layer.name}: the Hessian needed a damping of {solution.damping:g} instead of {wanted:g}")
        dead = int((moments.hessian.diagonal() == 0).sum())
        if 2 * dead > columns:
            doubts.append(
                f"{layer.name}: {dead} of {columns} inputs are dead or constant on the calibration images, "
                "so their weights are now 0: calibrate on more images"
            )
        return tuple(doubts)

    def _describe(self, moments: Moments, held_out: Moments | None, solution: Solution) -> dict[str, Any]:
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


def _since(start: float) -> dict[str, float]:
    return {"seconds": time.perf_counter() - start}


def _result(layer: Layer, weight: Any, **measured: Any) -> LayerResult:
    sparsity = float((weight == 0).float().mean()) if isinstance(weight, Tensor) else 0.0
    status = "dense" if layer.reason else "pruned"
    return LayerResult(layer.name, layer.kind, layer.shape, status, layer.reason, sparsity, **measured)


def _check(name: str, weight: Tensor, pattern: Pattern) -> None:
    """Check what the solver promised, by the same code that audits ONNX files."""
    check_finite({f"{name}.weight, as pruned,": weight})
    if isinstance(pattern, NM) and find_violations(weight.float().cpu().numpy(), pattern, axis=1).count:
        raise CheckFailedError(f"{name}: the pruned weight is not {pattern}", "This is a bug; please report it.")
