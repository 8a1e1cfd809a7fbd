"""Prune a whole network layer by layer. Each layer is calibrated on the outputs of the layers pruned before it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from sparsegpt_core.activations import LayerDemand, open_source
from sparsegpt_core.errors import CheckFailedError, InputError, ModelError
from sparsegpt_core.execution import DEFAULT, Resources, device_of, full_precision, with_smaller_batches
from sparsegpt_core.network import (
    Batch,
    Int8Weight,
    Layer,
    check_finite,
    eval_mode,
    have_same_shape,
    matches,
    network_inputs,
    plan_layers,
    split_batches,
)
from sparsegpt_core.patterns import NM, Pattern, find_violations
from sparsegpt_core.progress import Progress, silent
from sparsegpt_core.pruning.layer_choices import LayerChoices
from sparsegpt_core.pruning.layer_pruning import (
    Calibration,
    match_grouped_layer,
    prune_by_magnitude,
    prune_with_calibration,
)
from sparsegpt_core.pruning.layer_store import LayerStore, run_key
from sparsegpt_core.pruning.results import LayerResult, PruneResult
from sparsegpt_core.settings import PruneSettings

__all__ = ["prune_alone", "prune_model"]

_NO_CHOICES = LayerChoices()


def prune_model(
    model: nn.Module,
    batches: Tensor | Iterable[Batch | Mapping[str, Tensor]],
    settings: PruneSettings,
    progress: Progress = silent,
    resources: Resources = DEFAULT,
    *,
    choices: LayerChoices = _NO_CHOICES,
    int8_weights: bool = False,
    samples_per_image: int = 1,
) -> PruneResult:
    """Prune a network in place.

    Args:
        model: In float32. It runs in eval mode. The weights of pruned layers and of grouped convolutions after them,
            and the biases or batch norms that absorb their shifts, change; everything else stays.
        batches: Calibration inputs: one tensor (N, C, H, W), or batches such as a ``DataLoader`` gives: tensors, tuples
            that start with the network's inputs, such as (images, labels), or dicts that name them as ``forward`` does.
            All batches are used. With several processes, this one's share.
        settings: Pattern, method and layers.
        progress: Called after every layer.
        resources: Memory, scratch folder and processes.
        choices: Choices for single layers.
        int8_weights: Also round every pruned weight to INT8, for quantised exports.
        samples_per_image: Consecutive samples that show one image. They are held out together.

    Raises:
        ModelError: There is nothing to prune, or the model does not take the images.
        NumericsError: NaN or infinity in weights or activations, or a Hessian that cannot be damped.
        InputError: There are no images, a batch lacks an input, the memory is too small, or ``choices`` do not suit the
            pattern.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from sparsegpt_core.settings import PruneSettings
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Conv2d(4, 8, 1), nn.Conv2d(8, 8, 1), nn.Flatten(), nn.Linear(72, 2))
        >>> result = prune_model(model, [torch.randn(16, 4, 3, 3)], PruneSettings())
        >>> [(layer.name, layer.status, layer.sparsity) for layer in result.layers]
        [('0', 'dense', 0.0), ('1', 'pruned', 0.5), ('3', 'dense', 0.0)]
    """
    job = (model, batches, settings, progress, resources, choices, samples_per_image)
    with _planned(*job, int8_weights=int8_weights) as (run, tensors):
        layers, result = _prune(run, tensors)
        for tensor, value in (pair for layer in layers for pair in layer.values):
            tensor.copy_(value)
        return result


def prune_alone(
    model: nn.Module,
    batches: Tensor | Iterable[Batch | Mapping[str, Tensor]],
    settings: PruneSettings,
    progress: Progress = silent,
    resources: Resources = DEFAULT,
    *,
    choices: LayerChoices = _NO_CHOICES,
    samples_per_image: int = 1,
) -> dict[str, list[tuple[Tensor, Tensor]]]:
    """Prune each layer as if it were the only one. The network stays as it is.

    Args:
        model: The network, as for :func:`prune_model`.
        batches: Calibration inputs.
        settings: Pattern, method and layers.
        progress: Called after every layer.
        resources: Memory, scratch folder and processes.
        choices: Choices for single layers.
        samples_per_image: Consecutive samples that show one image.

    Returns:
        By layer, the parameters and buffers of the network that change, each with its new value.

    Raises:
        SparseGPTError: As :func:`prune_model`.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from sparsegpt_core.settings import PruneSettings
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Conv2d(4, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 2, 1))
        >>> alone = prune_alone(model, [torch.randn(16, 4, 3, 3)], PruneSettings())
        >>> sorted(alone), [tensor is model[2].weight for tensor, _ in alone["2"]]
        (['1', '2'], [True, False])
    """
    job = (model, batches, settings, progress, resources, choices, samples_per_image)
    with _planned(*job, alone=True) as (run, tensors):
        layers, _ = _prune(run, tensors)
        return {layer.result.name: list(layer.values) for layer in layers}


@contextlib.contextmanager
def _planned(
    model: nn.Module,
    batches: Tensor | Iterable[Batch | Mapping[str, Tensor]],
    settings: PruneSettings,
    progress: Progress,
    resources: Resources,
    choices: LayerChoices,
    samples_per_image: int,
    *,
    alone: bool = False,
    int8_weights: bool = False,
) -> Iterator[tuple[_Run, list[Tensor]]]:
    """Check the arguments, put the network into eval mode, and plan the layers."""
    if not isinstance(model, nn.Module):
        raise ModelError(f"the model is a {type(model).__name__}, not a torch.nn.Module", "The model comes first.")
    if not isinstance(settings, PruneSettings):
        raise InputError(f"the settings are a {type(settings).__name__}", 'Give PruneSettings(pattern="2:4").')
    tensors = network_inputs(model, batches)
    if not tensors:
        raise InputError("pruning needs calibration images")
    choices.check(settings.pattern)
    check_finite(model.state_dict())
    with eval_mode(model), torch.no_grad(), full_precision(resources.tf32):
        layers = plan_layers(model, tensors[0][:2], settings, choices.left_dense)
        if settings.variance is None:
            settings = replace(settings, variance=_gives_rows(model, tensors[0][:1]))
        folder = resources.finished if resources.world.size == 1 else None
        about = {
            "settings": asdict(settings),
            "choices": asdict(choices),
            "alone": alone,
            "int8_weights": int8_weights,
            "samples_per_image": samples_per_image,
            "device": device_of(model),
            "tf32": resources.tf32,
        }
        store = LayerStore(folder, run_key(model, tensors, about) if folder else "")
        run = _Run(
            model=model,
            layers=layers,
            settings=settings,
            choices=choices,
            alone=alone,
            int8_weights=int8_weights,
            samples_per_image=samples_per_image,
            progress=progress,
            resources=resources,
            store=store,
        )
        yield run, tensors


def _gives_rows(model: nn.Module, sample: Tensor) -> bool:
    """Whether the network gives one row of numbers for each sample, such as logits, and nothing else."""
    outputs = tree_leaves(model(sample.to(device_of(model))))
    return len(outputs) == 1 and isinstance(outputs[0], Tensor) and outputs[0].ndim == 2


@dataclass(frozen=True)
class _Run:
    """The arguments, the plan of layers, and the store of finished ones."""

    model: nn.Module
    layers: list[Layer]
    settings: PruneSettings
    choices: LayerChoices
    alone: bool
    """Whether each layer is pruned as if it were the only one."""
    int8_weights: bool
    samples_per_image: int
    progress: Progress
    resources: Resources
    store: LayerStore


@dataclass(frozen=True)
class _PrunedLayer:
    """One pruned or matched layer. Its new values are not yet in the network."""

    result: LayerResult
    """Its sparsity and errors."""
    values: tuple[tuple[Tensor, Tensor], ...]
    """Parameters and buffers of the network, each with its new value."""
    int8_weight: Int8Weight | None
    """Its weight rounded to INT8."""
    warnings: tuple[str, ...]
    """Warnings that name the layer."""


def _prune(run: _Run, batches: Sequence[Tensor]) -> tuple[list[_PrunedLayer], PruneResult]:
    """Prune every layer, with smaller batches where the GPU's memory is full."""
    if run.resources.world.size > 1:  # the other processes would not try again
        return _prune_network(run, batches)
    (layers, result), warnings = with_smaller_batches(partial(_prune_network, run), batches)
    return layers, replace(result, warnings=(*warnings, *result.warnings))


def _prune_network(run: _Run, batches: Sequence[Tensor]) -> tuple[list[_PrunedLayer], PruneResult]:
    """Prune every layer. The network stays as it is."""
    if run.settings.method == "magnitude":
        layers = _prune_layers(run, None)
        return layers, _result(run, layers)
    seconds: dict[str, float] = {}
    first_sample, samples = run.resources.world.place(sum(map(len, batches)))
    demand = _demand(run, first_sample, samples, same_shapes=have_same_shape(batches))
    batches = split_batches(batches, first_sample, samples - demand.held_out_samples)
    with open_source(run.model, batches, demand, run.resources, seconds) as source:
        layers = _prune_layers(run, Calibration(source, demand, run.resources.world, seconds))
    result = _result(run, layers)
    slow = (f"one forward pass for each layer: {source.fallback}",) if source.fallback else ()
    warnings = (*slow, *result.warnings)
    return layers, replace(result, seconds=seconds, warnings=warnings, spilled_bytes=source.spilled_bytes)


def _demand(run: _Run, first_sample: int, samples: int, *, same_shapes: bool) -> LayerDemand:
    settings = run.settings
    return LayerDemand(
        layers=_layers_to_change(run),
        samples=samples,
        first_sample=first_sample,
        held_out_samples=settings.held_out_count(samples, samples_per_image=run.samples_per_image),
        same_shapes=same_shapes,
        wants_dense=settings.needs_dense_outputs and not run.alone,
        widest_admm_columns=settings.admm_columns if settings.mask in ("admm", "auto") else 0,
    )


def _layers_to_change(run: _Run) -> list[Layer]:
    """The layers to prune, and those whose outputs are matched, in running order."""
    settings = run.settings

    def is_matched(layer: Layer) -> bool:
        return settings.matches_grouped_layers and layer.can_be_matched and not matches(layer.name, settings.exclude)

    return [layer for layer in run.layers if layer.reason is None or is_matched(layer)]


def _prune_layers(run: _Run, calibration: Calibration | None) -> list[_PrunedLayer]:
    """Prune the layers in running order, those that share a weight once, and match those between them."""
    total = sum(layer.reason is None for layer in run.layers)
    by_weight: dict[int, _PrunedLayer] = {}
    pruned: list[_PrunedLayer] = []
    done = 0
    run.progress("prune", 0, total)
    for layer in _layers_to_change(run):
        if layer.reason is not None:
            if calibration is not None and calibration.source.compares(layer):
                pruned.append(_prune_layer(run, layer, calibration))
            continue
        weight = id(layer.prunable.weight)
        if weight in by_weight:
            owner = by_weight[weight]
            result = replace(owner.result, name=layer.name, kind=layer.kind)
            pruned.append(replace(owner, result=result, warnings=()))
        else:
            by_weight[weight] = _prune_layer(run, layer, calibration)
            pruned.append(by_weight[weight])
        done += 1
        run.progress("prune", done, total)
    return pruned


def _prune_layer(run: _Run, layer: Layer, calibration: Calibration | None) -> _PrunedLayer:
    """Prune or match one layer, or load it from an interrupted run. Unless it is alone, later layers see its values."""
    parameter, pattern = layer.prunable.weight, run.choices.pattern_for(layer.name, run.settings.pattern)
    outcome = run.store.load(layer.name)
    if outcome is None:
        if calibration is None:
            outcome = prune_by_magnitude(layer, pattern)
        elif layer.reason is not None:
            outcome = match_grouped_layer(layer, run.settings, calibration)
        else:
            outcome = prune_with_calibration(layer, pattern, run.settings, calibration, int8_weights=run.int8_weights)
        run.store.save(layer.name, outcome)
    weight = outcome.weight.to(parameter.device) + 0.0  # no -0: it would depend on the number of processes
    _check(layer.name, weight, None if layer.reason else pattern)
    values = [(parameter, weight)]
    if layer.shift_target and outcome.absorbed is not None:
        values.append((layer.shift_target.tensor, outcome.absorbed.to(parameter.device)))
    if calibration is not None and not run.alone:
        for tensor, value in values:
            calibration.source.set_value(tensor, value)
    result = _layer_result(layer, weight, **outcome.measured)
    return _PrunedLayer(result, tuple(values), outcome.int8_weight, outcome.warnings)


def _result(run: _Run, pruned: Sequence[_PrunedLayer]) -> PruneResult:
    """Return the outcome of every layer, dense ones included."""
    results = {layer.result.name: layer.result for layer in pruned}
    return PruneResult(
        layers=tuple(results.get(layer.name) or _layer_result(layer, layer.weight) for layer in run.layers),
        seconds={},
        warnings=tuple(warning for layer in pruned for warning in layer.warnings),
        int8_weights={layer.result.name: layer.int8_weight for layer in pruned if layer.int8_weight is not None},
        keeps_variance=run.settings.keeps_variance,
    )


def _layer_result(layer: Layer, weight: Any, **measured: Any) -> LayerResult:
    sparsity = float((weight == 0).float().mean()) if isinstance(weight, Tensor) else 0.0
    status = "dense" if layer.reason else "pruned"
    return LayerResult(layer.name, layer.kind, layer.shape, status, layer.reason, sparsity, **measured)


def _check(name: str, weight: Tensor, pattern: Pattern | None) -> None:
    """Check the solver's promise by the same code that audits ONNX files."""
    check_finite({f"{name}.weight, as {'pruned' if pattern else 'matched'},": weight})
    if isinstance(pattern, NM) and find_violations(weight.float().cpu().numpy(), pattern, axis=1).count:
        raise CheckFailedError(f"{name}: the pruned weight is not {pattern}", "This is a bug; please report it.")
