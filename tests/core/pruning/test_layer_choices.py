"""Choices for single layers: quotas of zeros, and layers that stay dense."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sparsegpt_core.errors import InputError
from sparsegpt_core.patterns import NM, Unstructured
from sparsegpt_core.pruning import LayerChoices, prune_model
from sparsegpt_core.reasons import Reason
from sparsegpt_core.settings import PruneSettings


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16), nn.Linear(16, 2))


def images() -> list[torch.Tensor]:
    return [torch.randn(32, 8, generator=torch.Generator().manual_seed(1))]


def test_quotas_and_sensitive_layers_are_obeyed() -> None:
    choices = LayerChoices(quotas={"2": 0.75}, left_dense={"4": Reason.SENSITIVE})
    result = prune_model(network(), images(), PruneSettings(Unstructured(0.5)), choices=choices)
    layers = {layer.name: layer for layer in result.layers}
    assert {name: layer.sparsity for name, layer in layers.items()} == {"0": 0.5, "2": 0.75, "4": 0.0, "5": 0.0}
    assert layers["4"].reason is Reason.SENSITIVE


def test_quotas_need_an_unstructured_pattern() -> None:
    with pytest.raises(InputError, match="2:4 gives every layer the same zeros") as caught:
        prune_model(network(), images(), PruneSettings(NM(2, 4)), choices=LayerChoices(quotas={"2": 0.75}))
    assert caught.value.hint == "Use a fraction such as `pattern=0.5`."


@pytest.mark.parametrize("measure_sensitivity", [True, False])
def test_sensitivity_is_measured_if_asked_for(measure_sensitivity: bool) -> None:
    result = prune_model(network(), images(), PruneSettings(), measure_sensitivity=measure_sensitivity)
    pruned = [layer for layer in result.layers if layer.status == "pruned"]
    assert all((layer.sensitivity is not None) == measure_sensitivity for layer in pruned)
