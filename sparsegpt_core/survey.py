"""What every weight is worth in the dense network, by one sweep that prunes nothing; and what follows from that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sparsegpt_core.errors import InputError, ModelError
from sparsegpt_core.finished_orders import ORDERS
from sparsegpt_core.hessian import inverse_factor
from sparsegpt_core.inputs import Batch, as_tensors
from sparsegpt_core.layout import device_of, weight_to_matrix
from sparsegpt_core.modules import eval_mode
from sparsegpt_core.patterns import NM
from sparsegpt_core.permutation import PermutationResult, permute_channels
from sparsegpt_core.progress import Progress, silent
from sparsegpt_core.runtime import DEFAULT, Runtime, full_precision
from sparsegpt_core.selection import Layer
from sparsegpt_core.sequential import plan_layers
from sparsegpt_core.settings import PruneSettings
from sparsegpt_core.sources import open_source
from sparsegpt_core.statistics import LayerStatistics

__all__ = ["Survey", "global_quotas", "permute_model", "survey"]

_FULLEST = 0.99  # zeros in a layer at most, and non-zeros
_POSITIONS = 20  # per column: a ranking of weights needs fewer than their update


@dataclass(frozen=True)
class Survey:
    """The network's layers, and of those to prune the saliencies w² / [H_λ⁻¹]_jj (K, d) and the energy E‖W x‖².

    Of layers that share a weight only the first is there: it stands for all of them.
    """

    layers: list[Layer]
    saliencies: dict[str, Tensor]
    energies: dict[str, float]


def survey(
    model: nn.Module,
    batches: Sequence[Batch],
    settings: PruneSettings,
    progress: Progress = silent,
    runtime: Runtime = DEFAULT,
) -> Survey:
    """Sweep over the dense network and weigh every weight of the layers to prune.

    Args:
        model: In float32; not changed.
        batches: Calibration inputs, as :func:`~sparsegpt_core.sequential.prune_model` takes them.
        settings: Pattern, layers, damping and positions.
        progress: Told of every layer.
        runtime: Memory, scratch folder and processes.

    Raises:
        NumericsError: NaN or infinity in activations, or a Hessian that cannot be damped.
        InputError: The memory limit is too small.
    """
    tensors = as_tensors(batches)
    first, total = runtime.world.place(sum(map(len, tensors)))
    positions = min(settings.positions_per_column or _POSITIONS, _POSITIONS)
    with eval_mode(model), torch.no_grad(), full_precision(runtime.tf32):
        result = Survey(plan_layers(model, tensors[0][:2], settings), {}, {})
        todo = _first_uses(result.layers)
        progress("survey", 0, len(todo))
        with open_source(model, tensors, todo, first=first, dense=False, runtime=runtime, seconds={}) as source:
            for number, layer in enumerate(todo, 1):
                statistics = LayerStatistics(
                    layer.pruned,
                    samples=total,
                    centred=settings.bias and layer.absorber is not None,
                    positions_per_column=positions,
                )
                source.gather(layer, statistics)
                runtime.world.add_up(statistics.sums())
                moments = statistics.moments(layer.name)
                weight = weight_to_matrix(layer.pruned.weight.float())
                factor = inverse_factor(
                    moments.hessian, settings.damping_for(moments.used, weight.shape[1]), layer.name
                )
                result.saliencies[layer.name] = weight.square() / factor.inverse_diagonal()
                result.energies[layer.name] = float(((weight @ moments.hessian) * weight).sum())
                progress("survey", number, len(todo))
    return result


def global_quotas(
    model: nn.Module,
    batches: Sequence[Batch],
    settings: PruneSettings,
    progress: Progress = silent,
    runtime: Runtime = DEFAULT,
) -> dict[str, float]:
    """Share one budget of zeros among the layers: those go that are worth least beside their layer's energy.

    Args:
        model: In float32; not changed.
        batches: Calibration inputs, as :func:`~sparsegpt_core.sequential.prune_model` takes them.
        settings: An unstructured pattern, damping and layers.
        progress: Told of every layer.
        runtime: Memory, scratch folder and processes.

    Returns:
        The fraction of zeros of every layer to prune; no layer is emptied.

    Raises:
        InputError: The pattern is N:M.
    """
    if isinstance(settings.pattern, NM):
        raise InputError(f"{settings.pattern} leaves no budget to share", "Use a fraction such as --pattern 0.5.")
    found = survey(model, batches, settings, progress, runtime)
    relative = {name: (worth / (found.energies[name] or 1.0)).cpu() for name, worth in found.saliencies.items()}
    everything = torch.cat([worth.flatten() for worth in relative.values()])
    threshold = everything.kthvalue(max(1, round(settings.pattern.sparsity * len(everything)))).values
    shares = {name: float((worth <= threshold).double().mean()) for name, worth in relative.items()}
    return {name: min(max(share, 1 - _FULLEST), _FULLEST) for name, share in shares.items()}


def permute_model(
    model: nn.Module,
    batches: Sequence[Batch],
    settings: PruneSettings,
    progress: Progress = silent,
    runtime: Runtime = DEFAULT,
    *,
    limit: float = float("inf"),
    seed: int = 0,
) -> tuple[PermutationResult | None, str]:
    """Order the channels between layers, in place, so that pruning loses less; what the network computes stays.

    Args:
        model: In float32.
        batches: Calibration inputs, as :func:`~sparsegpt_core.sequential.prune_model` takes them.
        settings: Pattern, damping and layers.
        progress: Told of every layer surveyed and every group of channels searched.
        runtime: Memory, scratch folder and processes.
        limit: Seconds after which the searches are cut off; the survey before them is not.
        seed: Of the searches.

    Returns:
        What was permuted, or None with the reason why nothing can be.

    Raises:
        CheckFailedError: Outputs changed; the network is as it was before.
    """
    if not isinstance(settings.pattern, NM):
        return None, "unstructured pruning does not care about the order of channels"
    found = survey(model, batches, settings, progress, runtime)
    with full_precision(runtime.tf32):
        try:
            result = permute_channels(
                model,
                as_tensors(batches)[0][:2].to(device_of(model)),
                found.saliencies,
                found.layers,
                settings.pattern,
                energies=found.energies,
                seconds=limit,
                seed=seed,
                progress=progress,
                finished=runtime.finished / ORDERS if runtime.finished and runtime.world.size == 1 else None,
            )
        except ModelError as error:
            return None, str(error)
    return result, ""


def _first_uses(layers: Sequence[Layer]) -> list[Layer]:
    """The layers to prune, of those that share a weight the first."""
    owners: dict[int, Layer] = {}
    for layer in layers:
        if layer.reason is None:
            owners.setdefault(id(layer.pruned.weight), layer)
    return list(owners.values())
