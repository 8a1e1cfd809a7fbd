"""Prune a whole network layer by layer, each calibrated on what the layers pruned before it put out."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from sparsegpt_core.errors import CheckFailedError, InputError, ModelError
from sparsegpt_core.held_out import SplitStatistics, split_batches
from sparsegpt_core.inputs import Batch, as_tensors
from sparsegpt_core.joint_quant import IntegerWeight
from sparsegpt_core.layout import device_of, matrix_to_weight, weight_to_matrix
from sparsegpt_core.magnitude import magnitude
from sparsegpt_core.modules import check_finite, eval_mode
from sparsegpt_core.patterns import NM, Pattern, find_violations
from sparsegpt_core.progress import Progress, silent, timed
from sparsegpt_core.reasons import Reason
from sparsegpt_core.runtime import DEFAULT, Runtime, full_precision
from sparsegpt_core.selection import Layer, select_layers
from sparsegpt_core.settings import PruneSettings
from sparsegpt_core.solve import Solution, solve
from sparsegpt_core.sources import Source, open_source
from sparsegpt_core.statistics import Moments

__all__ = ["LayerResult", "PruneResult", "plan_layers", "prune_model"]


@dataclass(frozen=True)
class LayerResult:
    """What became of one layer.

    ``relative_error`` is ‖W x − Ŵ x̃‖² / ‖W x‖² over the calibration inputs, biases included where they were
    shifted, x in the dense and x̃ in the pruned network (x = x̃ without the dense target), ``magnitude_error`` the
    same for magnitude pruning on the same inputs, ``inherited_error`` what the dense weights would leave of it;
    ``positions`` counts the columns x̃ there were, ``positions_used`` those that were looked at. All are None where
    no input was looked at. ``sensitivity`` is what pruning adds to the error of held-out samples, where there were
    some; ``masks`` and ``alphas`` count the rows that took each, where there was a choice.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    status: str
    reason: Reason | None
    sparsity: float
    relative_error: float | None = None
    magnitude_error: float | None = None
    inherited_error: float | None = None
    sensitivity: float | None = None
    damping: float | None = None
    positions: int | None = None
    positions_used: int | None = None
    masks: dict[str, int] | None = None
    alphas: dict[float, int] | None = None
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the fields under their own names."""
        return asdict(self)


@dataclass(frozen=True)
class PruneResult:
    """Every layer in running order, seconds by stage, and what was noticed.

    The stages are trace, forward, statistics and solve; ``spilled_bytes`` of activations went to disk. ``integers``
    has every pruned layer's weight on an INT8 grid, by name, where the settings ask for it.
    """

    layers: tuple[LayerResult, ...]
    seconds: dict[str, float]
    warnings: tuple[str, ...]
    spilled_bytes: int = 0
    integers: Mapping[str, IntegerWeight] = field(default_factory=dict)

    @property
    def pruned(self) -> int:
        """How many layers were pruned."""
        return sum(layer.status == "pruned" for layer in self.layers)


def prune_model(
    model: nn.Module,
    batches: Sequence[Batch],
    settings: PruneSettings,
    progress: Progress = silent,
    runtime: Runtime = DEFAULT,
) -> PruneResult:
    """Prune a network in place.

    Args:
        model: In float32. It runs in eval mode meanwhile: nothing but the pruned weights changes.
        batches: Inputs (N, C, H, W), or tuples of several, on any device; with several processes, this one's share.
        settings: Pattern, method and layers.
        progress: Told of every layer.
        runtime: Memory, scratch folder and processes.

    Raises:
        ModelError: Nothing can be pruned, or the model does not take the images.
        NumericsError: NaN or infinity in weights or activations, or a Hessian that cannot be damped.
        InputError: There are no images, or the memory limit is too small.
    """
    if not batches:
        raise InputError("pruning needs calibration images")
    check_finite(model.state_dict())
    tensors = as_tensors(batches)
    with eval_mode(model), torch.no_grad(), full_precision(runtime.tf32):
        layers = plan_layers(model, tensors[0][:2], settings)
        return _Pruning(model, layers, settings, progress, runtime).run(tensors)


def plan_layers(model: nn.Module, sample: Batch, settings: PruneSettings) -> list[Layer]:
    """List the network's layers; those without a reason will be pruned.

    Layers that share a weight are pruned together: where one of them stays dense, so do the others.

    Args:
        model: The network, in eval mode.
        sample: A small batch of inputs (N, C, H, W), on any device, or a tuple of several inputs.
        settings: Pattern and globs.

    Raises:
        ModelError: There is none to prune, or the model does not take the sample.
        InputError: A glob names no layer.
    """
    (tensor,) = as_tensors([sample])
    with eval_mode(model):
        layers = select_layers(model, tensor.to(device_of(model)), settings.pattern, settings.include, settings.exclude)
    layers = [
        replace(layer, reason=Reason.SENSITIVE) if layer.reason is None and layer.name in settings.sensitive else layer
        for layer in layers
    ]
    reached = [layer for layer in layers if layer.reason is not Reason.NOT_REACHED]
    dense = {id(layer.plain.weight): layer.reason for layer in reached if layer.plain and layer.reason}
    layers = [
        replace(layer, reason=layer.reason or dense.get(id(layer.plain.weight))) if layer.plain else layer
        for layer in layers
    ]
    if all(layer.reason for layer in layers):
        counts = Counter(layer.reason.value for layer in layers if layer.reason)
        found = ", ".join(f"{count} {code}" for code, count in counts.items())
        raise ModelError(
            f"nothing to prune to {settings.pattern}: {found or 'no convolution or linear layer'}",
            "--include prunes layers left out as FIRST_LAYER, CLASSIFIER or EXCLUDED." if found else "",
        )
    for layer in layers:
        if layer.reason is None:
            _ = layer.pruned  # raises where there is nothing to prune
    return layers


class _Pruning:
    """One run: what it works with, its clock and its warnings."""

    def __init__(
        self, model: nn.Module, layers: list[Layer], settings: PruneSettings, progress: Progress, runtime: Runtime
    ) -> None:
        self._model, self._layers, self._settings = model, layers, settings
        self._progress, self._runtime = progress, runtime
        self._todo = [layer for layer in layers if layer.reason is None]
        self._changes: list[tuple[Tensor, Tensor]] = []  # parameters and buffers, and their new values
        self._integers: dict[str, IntegerWeight] = {}
        self._results: dict[str, LayerResult] = {}
        self._seconds: dict[str, float] = {}
        self._warnings: list[str] = []

    def run(self, batches: Sequence[Tensor]) -> PruneResult:
        spilled = 0
        if self._settings.method == "magnitude":
            self._prune_all(None, 0)
        else:
            first, samples = self._runtime.world.place(sum(map(len, batches)))
            held_out = self._settings.held_out(samples)
            with open_source(
                self._model,
                split_batches(batches, first, samples - held_out),
                self._todo,
                first=first,
                dense=self._settings.dense,
                runtime=self._runtime,
                seconds=self._seconds,
                admm_columns=self._settings.admm_columns if self._settings.mask in ("admm", "auto") else 0,
                held_out=held_out > 0,
            ) as source:
                if source.fallback:
                    self._warnings.append(f"one forward pass for each layer: {source.fallback}")
                self._prune_all(source, samples)
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

    def _prune_all(self, source: Source | None, samples: int) -> None:
        owners: dict[int, str] = {}
        self._progress("prune", 0, len(self._todo))
        for layer in self._todo:
            owner = owners.setdefault(id(layer.pruned.weight), layer.name)
            if owner == layer.name:
                self._prune(layer, source, samples)
            else:  # the same parameter under another name
                if owner in self._integers:
                    self._integers[layer.name] = self._integers[owner]
                self._results[layer.name] = replace(self._results[owner], name=layer.name, kind=layer.kind)
            self._progress("prune", len(self._results), len(self._todo))

    def _prune(self, layer: Layer, source: Source | None, samples: int) -> None:
        start = time.perf_counter()
        parameter, settings = layer.pruned.weight, self._settings
        settings = replace(settings, pattern=settings.pattern_for(layer.name))
        dense = weight_to_matrix(parameter.float())
        measured: dict[str, Any] = {}
        changes: list[tuple[Tensor, Tensor]] = []
        if source is None:
            sparse = magnitude(dense, settings.pattern)
        else:
            moments, held_out = self._moments(layer, source, samples)
            with timed(self._seconds, "solve"):
                solution = solve(dense, moments, settings, layer.name, self._runtime.world, held_out)
            sparse = solution.matrix
            measured = self._describe(layer, moments, held_out, solution)
            if solution.integers is not None:
                values = matrix_to_weight(solution.integers.values, layer.shape)
                self._integers[layer.name] = replace(solution.integers, values=values)
            if layer.absorber and solution.shift is not None:
                absorber = layer.absorber
                shifted = absorber.tensor + absorber.sign * solution.shift.to(absorber.tensor.dtype)
                changes.append((absorber.tensor, shifted))
        weight = matrix_to_weight(sparse, layer.shape).to(parameter.dtype)
        _check(layer.name, weight, settings.pattern)
        changes.append((parameter, weight))
        if source is not None:
            for tensor, value in changes:
                source.replace(tensor, value)
        self._changes += changes
        self._results[layer.name] = _result(layer, weight, **measured, seconds=time.perf_counter() - start)

    def _moments(self, layer: Layer, source: Source, samples: int) -> tuple[Moments, Moments | None]:
        statistics = SplitStatistics(
            layer.pruned,
            samples,
            self._settings.held_out(samples),
            cross=source.compares(layer),
            centred=self._settings.bias and layer.absorber is not None,
            positions_per_column=self._settings.positions_per_column,
        )
        source.gather(layer, statistics)
        with timed(self._seconds, "statistics"):
            self._runtime.world.add_up(statistics.sums())
            return statistics.moments(layer.name)

    def _describe(self, layer: Layer, moments: Moments, held_out: Moments | None, solution: Solution) -> dict[str, Any]:
        wanted = self._settings.damping_for(moments.used, math.prod(layer.shape[1:]))
        if solution.damping > wanted:
            self._warnings.append(
                f"{layer.name}: the Hessian needed a damping of {solution.damping:g} instead of {wanted:g}"
            )
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


def _result(layer: Layer, weight: Any, **measured: Any) -> LayerResult:
    sparsity = float((weight == 0).float().mean()) if isinstance(weight, Tensor) else 0.0
    status = "dense" if layer.reason else "pruned"
    return LayerResult(layer.name, layer.kind, layer.shape, status, layer.reason, sparsity, **measured)


def _check(name: str, weight: Tensor, pattern: Pattern) -> None:
    """Check what the solver promised, by the same code that audits ONNX files."""
    check_finite({f"{name}.weight, as pruned,": weight})
    if isinstance(pattern, NM) and find_violations(weight.float().cpu().numpy(), pattern, axis=1).count:
        raise CheckFailedError(f"{name}: the pruned weight is not {pattern}", "This is a bug; please report it.")
