"""Choices for single layers: quotas of zeros, and layers that stay dense. Layers pruned alone."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from sparsegpt_core.errors import InputError
from sparsegpt_core.execution import Resources
from sparsegpt_core.patterns import NM, Unstructured
from sparsegpt_core.pruning import LayerChoices, prune_alone, prune_model
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


@pytest.mark.parametrize("method", ["sparsegpt", "magnitude"])
@pytest.mark.parametrize("traced", [True, False])
def test_a_layer_pruned_alone_is_the_one_of_a_network_that_is_else_dense(method: str, traced: bool) -> None:
    model, settings, resources = network(), PruneSettings(method=method), Resources(traced=traced)
    before = copy.deepcopy(model.state_dict())
    alone = prune_alone(model, images(), settings, resources=resources)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert list(alone) == ["0", "2", "4"]
    for layer, values in alone.items():
        other = network()
        left_dense = dict.fromkeys(set(alone) - {layer}, Reason.SENSITIVE)
        prune_model(other, images(), settings, resources=resources, choices=LayerChoices(left_dense=left_dense))
        changed = {name: value for name, value in other.state_dict().items() if not torch.equal(before[name], value)}
        names = {id(tensor): name for name, tensor in model.state_dict(keep_vars=True).items()}
        assert {names[id(tensor)] for tensor, _ in values} >= set(changed)
        assert all(torch.equal(value, other.state_dict()[names[id(tensor)]]) for tensor, value in values)
