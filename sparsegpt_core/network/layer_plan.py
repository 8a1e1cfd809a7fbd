"""Which layers will be pruned, and why the others stay dense."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from torch import nn

from sparsegpt_core.errors import ModelError
from sparsegpt_core.execution import device_of
from sparsegpt_core.network.inputs import Batch, as_tensors
from sparsegpt_core.network.layers import Layer, select_layers
from sparsegpt_core.network.modules import eval_mode
from sparsegpt_core.reasons import Reason
from sparsegpt_core.settings import PruneSettings

__all__ = ["plan_layers"]


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
            "--include prunes layers left out as FIRST_LAYER, CLASSIFIER or EXCLUDED." if found else "",
        )
    for layer in layers:
        if layer.reason is None:
            _ = layer.prunable  # raises where there is nothing to prune
    return layers
