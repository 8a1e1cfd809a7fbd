"""Prune a whole network layer by layer, each calibrated on what the layers pruned before it put out."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sparsegpt_core.capture import layer_inputs
from sparsegpt_core.errors import CheckFailedError, InputError, ModelError
from sparsegpt_core.hessian import HessianAccumulator
from sparsegpt_core.layout import PrunableLayer, device_of, input_columns, matrix_to_weight, weight_to_matrix
from sparsegpt_core.magnitude import magnitude
from sparsegpt_core.modules import check_finite, eval_mode
from sparsegpt_core.patterns import NM, Pattern, find_violations
from sparsegpt_core.progress import Progress, silent, timed
from sparsegpt_core.reasons import Reason
from sparsegpt_core.selection import Layer, select_layers
from sparsegpt_core.settings import PruneSettings
from sparsegpt_core.solve import solve

__all__ = ["LayerResult", "PruneResult", "plan_layers", "prune_model"]

_MAX_COLUMN_BYTES = 256 << 20  # of im2col columns at a time


@dataclass(frozen=True)
class LayerResult:
    """What became of one layer.

    ``relative_error`` is ‖(Ŵ − W) x‖² / ‖W x‖² over the calibration inputs as the pruned network makes
    them, ``magnitude_error`` the same for magnitude pruning on the same inputs; ``positions`` counts the
    columns x. All are None where no input was looked at.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    status: str
    reason: Reason | None
    sparsity: float
    relative_error: float | None = None
    magnitude_error: float | None = None
    damping: float | None = None
    positions: int | None = None
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the fields under their own names."""
        return asdict(self)


@dataclass(frozen=True)
class PruneResult:
    """Every layer in running order, seconds by stage (forward, statistics, solve), and what was noticed."""

    layers: tuple[LayerResult, ...]
    seconds: dict[str, float]
    warnings: tuple[str, ...]

    @property
    def pruned(self) -> int:
        """How many layers were pruned."""
        return sum(layer.status == "pruned" for layer in self.layers)


def prune_model(
    model: nn.Module, batches: Sequence[Tensor], settings: PruneSettings, progress: Progress = silent
) -> PruneResult:
    """Prune a network in place.

    Args:
        model: In float32. It runs in eval mode meanwhile: nothing but the pruned weights changes.
        batches: Calibration inputs (N, C, H, W), on any device.
        settings: Pattern, method and layers.
        progress: Told of every layer.

    Raises:
        ModelError: Nothing can be pruned, or the model does not take the images.
        NumericsError: NaN or infinity in weights or activations, or a Hessian that cannot be damped.
    """
    if not batches:
        raise InputError("pruning needs calibration images")
    check_finite(model.state_dict())
    with eval_mode(model), torch.no_grad():
        return _prune(model, batches, settings, progress)


def plan_layers(model: nn.Module, sample: Tensor, settings: PruneSettings) -> list[Layer]:
    """List the network's layers; those without a reason will be pruned.

    Args:
        model: The network, in eval mode.
        sample: A small batch of inputs (N, C, H, W), on any device.
        settings: Pattern and globs.

    Raises:
        ModelError: There is none to prune, or the model does not take the sample.
        InputError: A glob names no layer.
    """
    layers = select_layers(model, sample.to(device_of(model)), settings.pattern, settings.include, settings.exclude)
    if all(layer.reason for layer in layers):
        counts = Counter(layer.reason.value for layer in layers if layer.reason)
        found = ", ".join(f"{count} {code}" for code, count in counts.items())
        raise ModelError(
            f"nothing to prune to {settings.pattern}: {found or 'no convolution or linear layer'}",
            "--include prunes layers left out as FIRST_LAYER, CLASSIFIER or EXCLUDED." if found else "",
        )
    return layers


def _prune(model: nn.Module, batches: Sequence[Tensor], settings: PruneSettings, progress: Progress) -> PruneResult:
    layers = plan_layers(model, batches[0][:2], settings)
    todo = [layer for layer in layers if layer.reason is None]
    seconds: dict[str, float] = {}
    results: dict[str, LayerResult] = {}
    progress("prune", 0, len(todo))
    for layer in todo:
        results[layer.name] = _prune_layer(model, layer, batches, settings, seconds)
        progress("prune", len(results), len(todo))
    return PruneResult(
        layers=tuple(results.get(layer.name) or _result(layer) for layer in layers),
        seconds=seconds,
        warnings=tuple(
            f"{r.name}: the Hessian needed a damping of {r.damping:g} instead of {settings.damping:g}"
            for r in results.values()
            if r.damping and r.damping > settings.damping
        ),
    )


def _prune_layer(
    model: nn.Module, layer: Layer, batches: Sequence[Tensor], settings: PruneSettings, seconds: dict[str, float]
) -> LayerResult:
    start = time.perf_counter()
    module = layer.module
    if not isinstance(module, PrunableLayer) or nn.utils.parametrize.is_parametrized(module):
        raise ModelError(
            f"{layer.name}: the weight is computed by a parametrization", "Remove it, or --exclude the layer."
        )
    dense = weight_to_matrix(module.weight.float())
    measured: dict[str, Any] = {}
    if settings.method == "magnitude":
        sparse = magnitude(dense, settings.pattern)
    else:
        statistics = _calibrate(model, layer, module, batches, seconds)
        with timed(seconds, "solve"):
            solution = solve(dense, statistics.mean(layer.name), settings, layer.name)
        sparse = solution.matrix
        measured = {
            "relative_error": solution.relative_error,
            "magnitude_error": solution.magnitude_error,
            "damping": solution.damping,
            "positions": statistics.positions,
        }
    weight = matrix_to_weight(sparse, module.weight.shape).to(module.weight.dtype)
    _check(layer.name, weight, settings.pattern)
    module.weight.copy_(weight)
    return _result(layer, **measured, seconds=time.perf_counter() - start)


def _result(layer: Layer, **measured: Any) -> LayerResult:
    weight = layer.module.weight
    sparsity = float((weight == 0).float().mean()) if isinstance(weight, Tensor) else 0.0
    status = "dense" if layer.reason else "pruned"
    return LayerResult(layer.name, layer.kind, layer.shape, status, layer.reason, sparsity, **measured)


def _calibrate(
    model: nn.Module, layer: Layer, module: PrunableLayer, batches: Sequence[Tensor], seconds: dict[str, float]
) -> HessianAccumulator:
    """Gather the layer's Hessian: forward passes that stop at it, im2col in pieces of bounded size."""
    statistics = HessianAccumulator(module.weight[0].numel(), module.weight.device)
    inputs = layer_inputs(model, layer, batches)
    while True:
        with timed(seconds, "forward"):
            x = next(inputs, None)
        if x is None:
            return statistics
        with timed(seconds, "statistics"):
            for piece in torch.split(x, _samples_at_a_time(module, x)):
                statistics.add(input_columns(module, piece))


def _samples_at_a_time(module: PrunableLayer, x: Tensor) -> int:
    copies = module.weight[0, 0].numel()  # kernel positions: how often im2col repeats an input value
    return max(1, _MAX_COLUMN_BYTES // (4 * copies * max(1, x[:1].numel())))


def _check(name: str, weight: Tensor, pattern: Pattern) -> None:
    """Check what the solver promised, by the same code that audits ONNX files."""
    check_finite({f"{name}.weight, as pruned,": weight})
    if isinstance(pattern, NM) and find_violations(weight.float().cpu().numpy(), pattern, axis=1).count:
        raise CheckFailedError(f"{name}: the pruned weight is not {pattern}", "This is a bug; please report it.")
