"""Weights that functions use: both doors prune them alike, and exported files and their audits name them alike."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from calibration.recovery.blocks import find_blocks
from calibration.training import FrozenZeros
from export.audit import audit_model
from export.importing import OnnxNetwork
from export.precision import plan_int8, to_int8
from export.writing import export_model
from sparsegpt_core.checkpoints import load_checkpoint, load_int8, save_checkpoint, save_int8
from sparsegpt_core.network import plan_layers, weight_key
from sparsegpt_core.patterns import NM, find_violations
from sparsegpt_core.pruning import permute_model, prune_model
from sparsegpt_core.settings import PruneSettings
from tests.support.networks import AttentionNet, FunctionalNet

FUNCTIONAL = ("kernel", "attention.in_proj_weight", "attention.out_proj", "mixing")


def _made(kind):
    """A network whose vectors are not all zeros or ones, which exported files would share."""
    torch.manual_seed(0)
    network = kind().eval()
    for vector in (each for each in network.parameters() if each.ndim == 1 or not each.any()):
        nn.init.normal_(vector, 0.5, 0.2)
    return network.requires_grad_(False)


def _weights(network, layers):
    parameters = dict(network.named_parameters())
    return {name: parameters[weight_key(name, parameters)] for name in layers}


# Attention without training averages its tokens: what is left of out_proj's inputs without their means is rounding.
@pytest.mark.parametrize(
    ("kind", "shape", "bias"),
    [(FunctionalNet, (4, 8, 8), True), (FunctionalNet, (4, 8, 8), False), (AttentionNet, (3, 32, 32), False)],
)
def test_both_doors_prune_alike(kind, shape, bias):
    network, settings = _made(kind), PruneSettings(bias=bias, refit=False, alpha=0, mask="exact")
    batches = list(torch.randn(64, *shape).split(24))
    opened = OnnxNetwork(export_model(network, shape))
    by_file, by_torch = prune_model(opened, batches, settings), prune_model(network, batches, settings)
    assert not by_torch.warnings  # one walk over the traced graph
    assert [(a.name, a.reason, a.positions_used) for a in by_file.layers] == [
        (b.name, b.reason, b.positions_used) for b in by_torch.layers
    ]
    names = [layer.name for layer in by_torch.layers if layer.status == "pruned"]
    for name, weight in _weights(network, names).items():
        other = opened.get_submodule(name).weight
        assert torch.equal(weight == 0, other == 0), name
        torch.testing.assert_close(weight, other, rtol=1e-2, atol=1e-3, msg=name)


@pytest.mark.parametrize(
    "kind",
    [
        lambda: torchvision.models.VisionTransformer(32, 8, 2, 2, 64, 128, num_classes=10),
        lambda: torchvision.models.SwinTransformer([2, 2], 16, [1, 2], [1, 2], [4, 4], num_classes=10),
    ],
    ids=["vit", "swin"],
)
def test_exported_transformers_are_sparse_under_their_layers_names(kind):
    network, settings = _made(kind), PruneSettings(method="magnitude")
    layers = {layer.name: layer.reason for layer in prune_model(network, torch.randn(2, 3, 32, 32), settings).layers}
    assert sum(reason is None for reason in layers.values()) == len(layers) - 2
    graph = export_model(network, (3, 32, 32))
    audit = audit_model(graph)
    audit.require_sparse([name for name, reason in layers.items() if reason is None], "export")
    products = [each for each in audit.layers if each.shape is not None]
    assert [each.name for each in products] == list(layers)
    opened = plan_layers(OnnxNetwork(graph), torch.randn(2, 3, 32, 32), PruneSettings())
    assert {layer.name: layer.reason for layer in opened} == layers


def test_equal_weights_keep_the_names_of_their_layers():
    network = nn.Sequential(*(nn.Linear(8, 8) for _ in range(3)))
    network[1].load_state_dict(network[0].state_dict())
    network[2].weight = network[0].weight
    graph = export_model(network, (torch.randn(2, 8),))
    assert [node.name for node in graph.graph.node if node.op_type == "Gemm"] == ["0", "1", "2"]


def test_the_samples_are_found_on_every_axis():
    """A token's position in the batch does not decide which of its positions are drawn."""
    network, images = _made(FunctionalNet), torch.randn(32, 4, 8, 8)
    settings = PruneSettings(positions_per_column=40, refit=False, alpha=0, mask="exact")
    results = []
    for sizes in ([32], [24, 8], [7, 25]):
        pruned = copy.deepcopy(network)
        used = {layer.name: layer.positions_used for layer in prune_model(pruned, images.split(sizes), settings).layers}
        results.append((pruned, used))
    assert results[0][1]["attention.in_proj_weight"] == results[0][1]["mixing"] == 40 * 16
    for other, used in results[1:]:
        assert used == results[0][1]
        for (name, a), b in zip(results[0][0].named_parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-3, msg=name)


def test_int8_weights_reach_the_file(tmp_path):
    network, batches = _made(FunctionalNet), [torch.randn(64, 4, 8, 8)]
    result = prune_model(network, batches, PruneSettings(), int8_weights=True)
    assert [*result.int8_weights] == [*FUNCTIONAL]
    save_checkpoint(tmp_path / "net.safetensors", network.state_dict(), {})
    save_int8(tmp_path / "net.safetensors", result.int8_weights)
    state, int8_weights = load_checkpoint(tmp_path / "net.safetensors").state, load_int8(tmp_path / "net.safetensors")
    graph = export_model(network, (4, 8, 8))
    plan = plan_int8(graph)
    quantised = to_int8(graph, plan, dict.fromkeys(plan.tensors, 0.05), int8_weights, state)
    audit = audit_model(quantised)
    audit.require_sparse(FUNCTIONAL, "int8")
    assert {layer.dtype for layer in audit.layers if layer.name in FUNCTIONAL} == {"int8"}


def test_training_keeps_the_zeros_of_parameters():
    network = _made(FunctionalNet)
    prune_model(network, [torch.randn(64, 4, 8, 8)], PruneSettings(method="magnitude"))
    zeros = FrozenZeros(network, FUNCTIONAL, NM(2, 4))
    for weight in _weights(network, FUNCTIONAL).values():
        weight.add_(1.0)
    zeros.restore()
    for name, weight in _weights(network, FUNCTIONAL).items():
        assert not find_violations(weight.numpy(), NM(2, 4), axis=1).count, name
        assert np.isclose(float((weight != 0).float().mean()), 0.5)


def test_blocks_contain_parameters():
    network = nn.Sequential(
        nn.Linear(64, 64), nn.TransformerEncoderLayer(64, 4, 128, batch_first=True), nn.Linear(64, 4)
    )
    pruned = ["0", "1.self_attn.in_proj_weight", "1.self_attn.out_proj", "1.linear1", "1.linear2"]
    layers = [block.layers for block in find_blocks(network, pruned, torch.randn(2, 5, 64))]
    assert sorted(layer for block in layers for layer in block) == sorted(pruned)


def test_channels_that_parameters_read_are_ordered():
    network, batches = _made(FunctionalNet), [torch.randn(64, 4, 8, 8)]
    expected = network(batches[0])
    result, reason = permute_model(network, batches, PruneSettings())
    assert reason == ""
    readers = {space.layers: space.reason for space in result.spaces}
    assert readers[("kernel",)] == ""
    torch.testing.assert_close(network(batches[0]), expected, rtol=1e-3, atol=1e-4)
