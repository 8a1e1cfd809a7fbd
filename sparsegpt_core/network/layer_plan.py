"""The plan: which layers will be pruned, and why the others stay dense."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from sparsegpt_core.errors import ModelError
from sparsegpt_core.execution import device_of
from sparsegpt_core.network.inputs import Batch, as_tensors
from sparsegpt_core.network.layers import Layer, select_layers
from sparsegpt_core.network.modules import eval_mode
from sparsegpt_core.network.tracing import GraphNetwork
from sparsegpt_core.reasons import Reason
from sparsegpt_core.settings import PruneSettings

__all__ = ["plan_layers"]


def plan_layers(model: nn.Module, sample: Batch, settings: PruneSettings, sensitive: Sequence[str] = ()) -> list[Layer]:
    """List the network's layers in running order. Those without a reason will be pruned.

    Layers that share a weight are pruned together: if one of them stays dense, all do.

    Args:
        model: The network, in eval mode.
        sample: A small batch of inputs (N, C, H, W), on any device, or a tuple of several inputs.
        settings: Pattern and globs.
        sensitive: Names of layers to leave dense because pruning them costs most.

    Raises:
        ModelError: There is nothing to prune, or the model does not take the sample.
        InputError: A glob matches no layer.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from sparsegpt_core.settings import PruneSettings
        >>> model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 6), nn.Linear(6, 8), nn.Linear(8, 4)).eval()
        >>> [(layer.name, layer.reason and layer.reason.value) for layer in plan_layers(
        ...     model, torch.ones(2, 8), PruneSettings())]
        [('0', None), ('1', None), ('2', 'CHANNELS_NOT_MULTIPLE'), ('3', 'HEAD')]
    """
    (tensor,) = as_tensors([sample])
    with eval_mode(model):
        tensor, globs = tensor.to(device_of(model)), (settings.include, settings.exclude)
        if isinstance(model, GraphNetwork):
            layers = model.select_layers(tensor, settings.pattern, *globs)
        else:
            layers = select_layers(model, tensor, settings.pattern, *globs)
    layers = [
        replace(layer, reason=Reason.SENSITIVE) if layer.reason is None and layer.name in sensitive else layer
        for layer in layers
    ]
    reached = [layer for layer in layers if layer.reason is not Reason.NOT_REACHED]
    dense = {id(layer.common_call.weight): layer.reason for layer in reached if layer.common_call and layer.reason}
    layers = [
        replace(layer, reason=layer.reason or dense.get(id(layer.common_call.weight))) if layer.common_call else layer
        for layer in layers
    ]
    if all(layer.reason for layer in layers):
        counts = Counter(layer.reason.value for layer in layers if layer.reason)
        found = ", ".join(f"{count} {code}" for code, count in counts.items())
        raise ModelError(
            f"nothing to prune to {settings.pattern}: {found or 'no convolution or linear layer'}",
            "`include` prunes layers left out as FIRST_LAYER, HEAD or EXCLUDED." if found else "",
        )
    for layer in layers:
        if layer.reason is None:
            _ = layer.prunable  # raises if no call uses the stored weight
    return layers
