import copy

import pytest
import timm
import torch
import torchvision
from torch import nn

from sparsegpt_core.execution import Resources
from sparsegpt_core.network.layer_plan import select_layers
from sparsegpt_core.patterns import NM
from sparsegpt_core.pruning import prune_model
from sparsegpt_core.settings import PruneSettings
from tests.support.networks import images


class Readers(nn.Module):
    """Layers whose outputs are read in different ways."""

    def __init__(self):
        super().__init__()
        for name in ("stem", "alone", "skipped", "activated", "twice"):
            setattr(self, name, nn.Conv2d(4, 4, 3, padding=1, bias=False))
        self.biased = nn.Conv2d(4, 4, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(4) for _ in range(4))
        self.shared = nn.BatchNorm2d(4)
        self.stateless = nn.BatchNorm2d(4, track_running_stats=False)
        self.first, self.second = (nn.Conv2d(4, 4, 3, padding=1, bias=False) for _ in range(2))
        self.unknown = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        x = self.norms[0](self.stem(x))
        x = self.norms[1](self.alone(x))
        y = self.skipped(x)
        x = self.norms[2](y) + y
        x = self.norms[3](self.activated(x).relu())
        x = self.biased(x)
        x = self.twice(self.twice(x))
        x = self.shared(self.first(x)) + self.shared(self.second(x))
        return self.head(self.stateless(self.unknown(x)).mean((2, 3)))


def shift_targets(network):
    torch.manual_seed(0)
    return {layer.name: layer.shift_target for layer in select_layers(network.eval(), images()[0], NM(2, 4))}


def test_shift_targets_are_biases_and_batch_norms_with_one_input():
    network = Readers()
    found = shift_targets(network)
    assert {name for name, shift_target in found.items() if shift_target} == {"stem", "alone", "biased", "head"}
    assert (found["alone"].tensor is network.norms[1].running_mean, found["alone"].sign) == (True, -1)
    assert (found["biased"].tensor is network.biased.bias, found["biased"].sign) == (True, 1)


@pytest.mark.parametrize(
    ("make", "count"),
    [
        (lambda: torchvision.models.resnet18(), 21),
        (lambda: torchvision.models.mobilenet_v2(), 53),
        (lambda: timm.create_model("efficientnet_b0"), 82),  # timm's own fused norm and activation
        (lambda: torchvision.models.vgg11(), 11),
    ],
)
def test_every_layer_of_common_networks_has_a_shift_target(make, count):
    layers = select_layers(make().eval(), torch.randn(2, 3, 64, 64), NM(2, 4))
    assert len(layers) == count
    assert all(layer.shift_target for layer in layers)


@pytest.mark.parametrize("traced", [True, False])
def test_the_mean_of_every_output_is_kept(traced):
    torch.manual_seed(0)
    dense = (
        nn.Sequential(
            nn.Conv2d(4, 8, 3),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 1),
        )
        .append(nn.Flatten())
        .append(nn.Linear(128, 3))
        .eval()
    )
    data = torch.cat(images())
    pruned, without = copy.deepcopy(dense), copy.deepcopy(dense)
    result = prune_model(pruned, [data], PruneSettings(), resources=Resources(traced=traced))
    prune_model(without, [data], PruneSettings(bias=False), resources=Resources(traced=traced))
    with torch.no_grad():
        for stop in (4, 6):  # behind the batch norm, behind the bias
            means = [network[:stop](data).mean((0, 2, 3)) for network in (dense, pruned, without)]
            torch.testing.assert_close(means[1], means[0], rtol=1e-4, atol=1e-5)
            assert (means[2] - means[0]).abs().max() > 1e-3
            assert torch.equal(without[3].running_mean, dense[3].running_mean)
        out, expected = pruned[:6](data), dense[:6](data)
        error = (out - expected).square().sum() / (expected - dense[5].bias[:, None, None]).square().sum()
    last = next(layer for layer in result.layers if layer.name == "5")
    assert last.relative_error == pytest.approx(float(error), rel=1e-3)
