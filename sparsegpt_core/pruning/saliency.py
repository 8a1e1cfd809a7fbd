"""How much every weight of the dense network matters, from one walk that prunes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sparsegpt_core.activations import LayerDemand, open_source
from sparsegpt_core.execution import DEFAULT, Resources, full_precision
from sparsegpt_core.network import Batch, Layer, as_tensors, eval_mode, have_same_shape, plan_layers
from sparsegpt_core.progress import Progress, silent
from sparsegpt_core.pruning.layer_moments import gather_moments
from sparsegpt_core.reasons import Reason
from sparsegpt_core.settings import PruneSettings

__all__ = ["Saliencies", "measure_saliencies"]

_MAX_POSITIONS_PER_COLUMN = 20  # ranking weights needs fewer positions than updating them


@dataclass(frozen=True)
class Saliencies:
    """How much every weight of the dense network matters. The first of several layers that share a weight has it."""

    layers: list[Layer]
    """All layers of the network."""
    saliencies: dict[str, Tensor]
    """w² / [H_λ⁻¹]_jj (K, d), by the name of the layer to prune."""
    energies: dict[str, float]
    """E‖W x‖², by the name of the layer to prune."""


def measure_saliencies(
    model: nn.Module,
    batches: Sequence[Batch],
    settings: PruneSettings,
    progress: Progress = silent,
    resources: Resources = DEFAULT,
    left_dense: Mapping[str, Reason] | None = None,
) -> Saliencies:
    """Measure the saliency of every weight of the layers to prune.

    Args:
        model: In float32; not changed.
        batches: Calibration inputs, as :func:`~sparsegpt_core.pruning.prune_model` takes them.
        settings: Pattern, layers, damping and positions.
        progress: Called after every layer.
        resources: Memory, scratch folder and processes.
        left_dense: Layers that will not be pruned, with the reason.

    Raises:
        NumericsError: NaN or infinity in activations, or a Hessian that cannot be damped.
        InputError: The memory limit is too small.
    """
    tensors, seconds = as_tensors(batches), dict[str, float]()
    first, samples = resources.world.place(sum(map(len, tensors)))
    positions = min(settings.positions_per_column or _MAX_POSITIONS_PER_COLUMN, _MAX_POSITIONS_PER_COLUMN)
    with eval_mode(model), torch.no_grad(), full_precision(resources.tf32):
        result = Saliencies(plan_layers(model, tensors[0][:2], settings, left_dense), {}, {})
        demand = LayerDemand(_first_uses(result.layers), samples, first, same_shapes=have_same_shape(tensors))
        progress("saliency", 0, len(demand.layers))
        with open_source(model, tensors, demand, resources, seconds) as source:
            for done, layer in enumerate(demand.layers, 1):
                moments, _ = gather_moments(
                    layer,
                    source,
                    demand,
                    centred=settings.bias and layer.shift_target is not None,
                    positions_per_column=positions,
                    world=resources.world,
                    seconds=seconds,
                )
                weight = layer.scaled_matrix
                damping = settings.damping_for(moments.used, weight.shape[1])
                factor = moments.hessian.factor(damping, layer.name)
                result.saliencies[layer.name] = weight.square() / factor.upper.inverse_diagonal()
                result.energies[layer.name] = float(((weight @ moments.hessian) * weight).sum())
                progress("saliency", done, len(demand.layers))
    return result


def _first_uses(layers: Sequence[Layer]) -> list[Layer]:
    """The layers to prune; of those that share a weight only the first."""
    owners: dict[int, Layer] = {}
    for layer in layers:
        if layer.reason is None:
            owners.setdefault(id(layer.prunable.weight), layer)
    return list(owners.values())
