"""What every weight is worth in the dense network, by one sweep that prunes nothing; and what follows from that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sparsegpt_core.activations import open_source
from sparsegpt_core.execution import DEFAULT, Resources, full_precision
from sparsegpt_core.linalg import inverse_factor
from sparsegpt_core.network import Batch, Layer, as_tensors, eval_mode, plan_layers, weight_to_matrix
from sparsegpt_core.progress import Progress, silent
from sparsegpt_core.settings import PruneSettings
from sparsegpt_core.statistics import LayerStatistics

__all__ = ["Saliencies", "measure_saliencies"]

_POSITIONS = 20  # per column: a ranking of weights needs fewer than their update


@dataclass(frozen=True)
class Saliencies:
    """The network's layers, and of those to prune the saliencies w² / [H_λ⁻¹]_jj (K, d) and the energy E‖W x‖².

    Of layers that share a weight only the first is there: it stands for all of them.
    """

    layers: list[Layer]
    saliencies: dict[str, Tensor]
    energies: dict[str, float]


def measure_saliencies(
    model: nn.Module,
    batches: Sequence[Batch],
    settings: PruneSettings,
    progress: Progress = silent,
    resources: Resources = DEFAULT,
) -> Saliencies:
    """Sweep over the dense network and weigh every weight of the layers to prune.

    Args:
        model: In float32; not changed.
        batches: Calibration inputs, as :func:`~sparsegpt_core.pruning.prune_model` takes them.
        settings: Pattern, layers, damping and positions.
        progress: Told of every layer.
        resources: Memory, scratch folder and processes.

    Raises:
        NumericsError: NaN or infinity in activations, or a Hessian that cannot be damped.
        InputError: The memory limit is too small.
    """
    tensors = as_tensors(batches)
    first, total = resources.world.place(sum(map(len, tensors)))
    positions = min(settings.positions_per_column or _POSITIONS, _POSITIONS)
    with eval_mode(model), torch.no_grad(), full_precision(resources.tf32):
        result = Saliencies(plan_layers(model, tensors[0][:2], settings), {}, {})
        todo = _first_uses(result.layers)
        progress("survey", 0, len(todo))
        with open_source(model, tensors, todo, first=first, dense=False, resources=resources, seconds={}) as source:
            for number, layer in enumerate(todo, 1):
                statistics = LayerStatistics(
                    layer.pruned,
                    samples=total,
                    centred=settings.bias and layer.shift_target is not None,
                    positions_per_column=positions,
                )
                source.gather(layer, statistics)
                resources.world.add_up(statistics.sums())
                moments = statistics.moments(layer.name)
                weight = weight_to_matrix(layer.pruned.weight.float())
                factor = inverse_factor(
                    moments.hessian, settings.damping_for(moments.used, weight.shape[1]), layer.name
                )
                result.saliencies[layer.name] = weight.square() / factor.inverse_diagonal()
                result.energies[layer.name] = float(((weight @ moments.hessian) * weight).sum())
                progress("survey", number, len(todo))
    return result


def _first_uses(layers: Sequence[Layer]) -> list[Layer]:
    """The layers to prune, of those that share a weight the first."""
    owners: dict[int, Layer] = {}
    for layer in layers:
        if layer.reason is None:
            owners.setdefault(id(layer.pruned.weight), layer)
    return list(owners.values())
