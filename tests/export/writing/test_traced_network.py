"""A network that was traced once gives the same bytes with new weights as a new export."""

import pytest
import torch
import torchvision
from torch import nn

from export.writing import TracedNetwork, export_model
from tests.support.exports import METADATA
from tests.support.networks import Mixer


def small_vit():
    return torchvision.models.VisionTransformer(16, 8, 2, 2, 16, 32, num_classes=4)


class Odd(nn.Module):
    """A shared weight, a buffer that is a constant, and a tensor in no state dict."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.register_buffer("scale", torch.full((1, 3, 1, 1), 2.0))
        self.register_buffer("hidden", torch.full((1, 3, 1, 1), 0.5), persistent=False)
        self.unused = nn.Linear(2, 2)

    def forward(self, x):
        return self.norm(self.conv(self.conv(x) * self.scale).relu()) + self.hidden


def changed(network, seed):
    """Give every tensor of the state dict other values, some of them equal: the exporter merges equal tensors."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.1)
        if name.endswith("bias"):
            tensor.fill_(seed)
    return network.eval()


@pytest.mark.parametrize(
    ("make", "shape", "settings"),
    [
        (Odd, (3, 8, 8), {}),
        (Odd, (3, 8, 8), {"fold_batch_norm": False, "dynamic_size": True}),
        (Mixer, (4, 8, 8), {"opset": 17}),
        (lambda: torchvision.models.resnet18(num_classes=4), (3, 32, 32), {}),
        (lambda: torchvision.models.mobilenet_v3_small(num_classes=4), (3, 32, 32), {}),
        (small_vit, (3, 16, 16), {}),
    ],
    ids=["odd", "unfolded", "mixer-17", "resnet18", "mobilenet", "vit"],
)
def test_the_bytes_of_a_direct_export(make, shape, settings):
    network = changed(make(), 1)
    traced = TracedNetwork(network, shape, **settings)
    direct = dict[int, bytes]()
    for seed in (1, 2, 1):
        changed(network, seed)
        again = traced.to_onnx(network.state_dict(), METADATA).SerializeToString(deterministic=True)
        if seed not in direct:
            direct[seed] = export_model(network, shape, METADATA, **settings).SerializeToString(deterministic=True)
        assert again == direct[seed]


def test_it_keeps_no_weights():
    network = nn.Sequential(nn.Conv2d(2, 4, 1), nn.BatchNorm2d(4)).eval()
    traced = TracedNetwork(network, (2, 4, 4))
    stored = traced._model.graph.initializers
    assert {name for name, value in stored.items() if value.const_value is not None}.isdisjoint(network.state_dict())
