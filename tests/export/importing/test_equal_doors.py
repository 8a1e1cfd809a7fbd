"""The same weights, pruned as a module and from its ONNX file: equal to the last bit."""

from __future__ import annotations

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
