"""The same weights, pruned as a module and from its ONNX file: equal to the last bit."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest
import torch
from torch import nn

from export.importing import OnnxNetwork
from export.writing import export_model
from sparsegpt_core.pruning import prune_model
from sparsegpt_core.settings import PruneSettings


class Residual(nn.Module):
    """A ResNet of two blocks, whose operations between the layers are exact: ReLU, addition, maxima."""

    def __init__(self, norm) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(nn.Conv2d(4, 16, 3, bias=norm is nn.Identity), norm(16), nn.ReLU(), nn.MaxPool2d(2))
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(16, 16, 3, padding=1), norm(16), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), norm(16)
            )
            for _ in range(2)
        )
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = torch.relu(x + block(x))
        return self.head(x.mean((2, 3)))


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, nn.Identity])
def test_both_doors_give_equal_weights(norm):
    """A batch norm that is an operator of the file has PyTorch's rounding; one that is folded is none."""
    network = Residual(norm).train()
    images = torch.randn(64, 4, 18, 18)
    network(images)  # statistics of the batch norms
    file = OnnxNetwork(export_model(network.eval(), (images[:2],), fold_batch_norm=False))
    settings = PruneSettings(include=("*",))
    results = [prune_model(each, [*images.split(16)], settings) for each in (network, file)]
    assert [layer.status for layer in results[0].layers] == ["pruned"] * 6
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            assert torch.equal(module.weight, file.get_submodule(name).weight), name
    assert torch.allclose(network.head.weight, file.get_submodule("head").weight, atol=1e-4)  # after a mean


@pytest.mark.parametrize("bias", [False, True])
def test_folding_batch_norms_into_the_weights_changes_nothing_but_rounding(bias):
    """Their scales span two orders of magnitude and both signs; errors count as they do after them."""
    network = Residual(nn.BatchNorm2d)
    for module in [*network.modules()]:
        if isinstance(module, nn.Conv2d) and bias:
            module.bias = nn.Parameter(torch.randn(len(module.weight)))
        if isinstance(module, nn.BatchNorm2d):
            with torch.no_grad():
                module.weight.copy_(torch.logspace(-1, 1, 16)[torch.randperm(16)] * torch.randn(16).sign())
    images = torch.randn(64, 4, 18, 18)
    network.train()(images)  # statistics of the batch norms
    file = OnnxNetwork(export_model(network.eval(), (images[:2],)))
    norms = dict(network.named_modules())
    by_torch, by_file = (
        {layer.name: layer for layer in prune_model(each, [*images.split(16)], PruneSettings(include=("*",))).layers}
        for each in (network, file)
    )
    assert by_torch.keys() == by_file.keys()
    for name, layer in by_torch.items():
        assert layer.relative_error == pytest.approx(by_file[name].relative_error, rel=1e-4), name
        weight, folded = (each.detach() for each in (norms[name].weight, file.get_submodule(name).weight))
        assert torch.equal(weight == 0, folded == 0), name
        if isinstance(norms[name], nn.Conv2d):
            owner, _, place = name.rpartition(".")
            norm = norms[f"{owner}.{int(place) + 1}"]
            weight = weight * (norm.weight / (norm.running_var + norm.eps).sqrt()).detach()[:, None, None, None]
        assert torch.allclose(weight, folded, rtol=1e-3, atol=1e-4 * float(weight.abs().max())), name


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here")
def test_a_file_with_batch_norms_is_pruned_on_a_gpu():
    network, images = Residual(nn.BatchNorm2d).train(), torch.randn(64, 4, 18, 18)
    network(images)  # statistics of the batch norms
    file = OnnxNetwork(export_model(network.eval(), (images[:2],), fold_batch_norm=False)).to("cuda")
    assert prune_model(file, [*images.split(16)], PruneSettings()).pruned == 4


class Inverted(nn.Module):
    """Two inverted residuals, with depthwise convolutions between the pruned layers."""

    def __init__(self, norm) -> None:
        super().__init__()
        torch.manual_seed(0)
        bias = norm is nn.Identity
        self.stem = nn.Conv2d(4, 8, 3)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                *(nn.Conv2d(8, 24, 1, bias=bias), norm(24), nn.ReLU()),
                *(nn.Conv2d(24, 24, 3, padding=1, groups=24, bias=bias), norm(24), nn.ReLU()),
                *(nn.Conv2d(24, 8, 1, bias=bias), norm(8)),
            )
            for _ in range(2)
        )
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = self.stem(x).relu()
        for block in self.blocks:
            x = x + block(x)
        return self.head(x.mean((2, 3)))


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, nn.Identity])
def test_both_doors_give_equal_weights_to_depthwise_convolutions(norm):
    network = Inverted(norm).train()
    images = torch.randn(64, 4, 10, 10)
    network(images)
    before = {name: value.clone() for name, value in network.eval().state_dict().items()}
    file = OnnxNetwork(export_model(network, (images[:2],), fold_batch_norm=False))
    stored = {each.name: each for each in file.to_onnx().graph.initializer}
    results = [prune_model(each, [*images.split(16)], PruneSettings()) for each in (network, file)]
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            assert torch.equal(module.weight, file.get_submodule(name).weight), name
    depthwise = [name for name, module in network.named_modules() if getattr(module, "groups", 1) > 1]
    for name in depthwise:
        assert not torch.equal(network.get_submodule(name).weight, before[f"{name}.weight"])
    changed = {
        each.name
        for each in file.to_onnx().graph.initializer
        if each.SerializeToString() != stored[each.name].SerializeToString()
    }
    assert {f"{name}.weight" for name in depthwise} < changed
    assert not changed & {"stem.weight", "head.weight"}
    for one, other in zip(*(each.layers for each in results), strict=True):
        assert (one.name, one.reason, one.relative_error) == (other.name, other.reason, other.relative_error)


def test_a_depthwise_weight_that_two_nodes_read_stays():
    graph = """
        <ir_version: 8, opset_import: ["": 17]>
        g (float[N, 8, 6, 6] x) => (float[N, 8, 6, 6] y)
        { a = Conv(x, v)  b = Conv(a, u)  c = Conv<group=8>(b, w)  d = Conv<group=8>(c, w)  y = Conv(d, v) }
    """
    model, random = onnx.parser.parse_model(graph), np.random.default_rng(0)
    for name, shape in {"v": (8, 8, 1, 1), "u": (8, 8, 1, 1), "w": (8, 1, 1, 1)}.items():
        values = random.normal(size=shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    file = OnnxNetwork(model)
    result = prune_model(file, [torch.randn(32, 8, 6, 6)], PruneSettings(include=["b"]))
    assert [(each.name, each.status) for each in result.layers if each.status == "pruned"] == [("b", "pruned")]
    stored = {each.name: each for each in file.to_onnx().graph.initializer}
    assert stored["w"] == next(each for each in model.graph.initializer if each.name == "w")
