"""Which weights share an order of channels: applying a random order must not change a network's outputs."""

import re

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torchvision.models import DenseNet, MobileNetV2, RegNet, ShuffleNetV2
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.models.efficientnet import EfficientNet, MBConvConfig
from torchvision.models.regnet import BlockParams
from torchvision.models.vgg import make_layers

from sparsegpt_core.permutation.channel_spaces import find_spaces
from sparsegpt_core.permutation.permute import apply_order, inverse


def randomised(network):
    """Return the network in float64 and eval mode, with other statistics and scales in every channel."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in (*network.named_parameters(), *network.named_buffers()):
            if name.endswith(("running_var", "layer_scale")):
                tensor.uniform_(0.5, 1.5, generator=generator)
            elif tensor.dim() == 1:
                tensor.normal_(0.3, 0.3, generator=generator)
    return network.double().eval().requires_grad_(False)


def permuted_at_random(network, spaces):
    """Apply a random order to every space that is not frozen; return the orders."""
    generator = torch.Generator().manual_seed(1)
    orders = [(space, torch.randperm(space.size, generator=generator)) for space in spaces if not space.frozen]
    for space, order in orders:
        apply_order(space, order)
    return orders


def described(network):
    """Why each space is frozen, by its members as name:axis or name:axis×block."""
    names = {id(tensor): name for name, tensor in (*network.named_parameters(), *network.named_buffers())}
    spaces = find_spaces(network.eval(), torch.zeros(2, 4, 10, 10))
    return {
        frozenset(
            f"{names[id(m.tensor)]}:{m.axis}" + (f"×{m.block}" if m.block > 1 else "") for m in space.members
        ): space.frozen
        for space in spaces
    }


def free(network):
    return {members for members, frozen in described(network).items() if not frozen}


def check_outputs(network, sample, least):
    """Permute every free space: outputs stay, and the inverse order restores every bit."""
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    expected = network(sample)
    orders = permuted_at_random(network, find_spaces(network, sample))
    assert len(orders) >= least
    error = (network(sample) - expected).abs().max() / expected.abs().max()
    assert error < 1e-10
    assert any(not torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    for space, order in orders:
        apply_order(space, inverse(order))
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def vgg():
    features = make_layers([8, "M", 16, 16, "M", 32, "M"], batch_norm=True)
    head = (nn.Linear(32 * 49, 16), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(16, 5))
    return nn.Sequential(features, nn.AdaptiveAvgPool2d(7), nn.Flatten(), *head)


def efficientnet():
    blocks = [MBConvConfig(1, 3, 1, 32, 16, 1, 1, 1), MBConvConfig(4, 5, 2, 16, 24, 2, 1, 1)]
    return EfficientNet(blocks, 0.2, num_classes=5)


def convnext():
    return ConvNeXt([CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 1)], num_classes=5)


def regnet():
    return RegNet(BlockParams.from_init_params(4, 24, 24, 2.5, 8, se_ratio=0.25), num_classes=5)


NETWORKS = {  # each with the least number of its free spaces
    "resnet18": (lambda: torchvision.models.resnet18(num_classes=5), 12),
    "mobilenet_v2": (lambda: MobileNetV2(5, inverted_residual_setting=[[1, 16, 1, 1], [6, 24, 2, 2]]), 6),
    "efficientnet": (efficientnet, 9),
    "vgg": (vgg, 5),
    "densenet": (lambda: DenseNet(8, (2, 2), 16, num_classes=5), 4),
    "shufflenet": (lambda: ShuffleNetV2([1, 1, 1], [24, 48, 96, 192, 64], 5), 5),
    "regnet": (regnet, 8),
    "convnext": (convnext, 4),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_no_order_changes_the_outputs_of_a_network(name):
    torch.manual_seed(0)
    make, least = NETWORKS[name]
    network = randomised(make())
    check_outputs(network, torch.randn(2, 3, 64, 64, dtype=torch.float64), least)


class Zoo(nn.Module):
    """Every operation that passes channels on."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(4, 8, 3, padding=1)
        self.prelu = nn.PReLU(8)
        self.multiplied = nn.Conv2d(8, 16, 3, padding=1, groups=8)  # a depthwise convolution with two filters each
        self.norm = nn.GroupNorm(1, 16)
        self.instance = nn.InstanceNorm2d(16, affine=True, track_running_stats=True)
        self.up = nn.ConvTranspose2d(16, 12, 2, stride=2)
        self.scale = nn.Parameter(torch.ones(12, 1, 1))
        self.gate = nn.Conv2d(12, 12, 1)
        self.spatial_gate = nn.Conv2d(12, 1, 3, padding=1)
        self.mix = nn.Conv2d(12, 8, 1)
        self.norm_last = nn.LayerNorm(8)
        self.last = nn.Linear(8, 8)
        self.flat = nn.Linear(8 * 4, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = self.prelu(self.stem(x))
        x = self.instance(self.norm(self.multiplied(F.pad(x, (1, 0, 1, 0)))))
        x = self.scale * self.up(F.interpolate(x, scale_factor=2, mode="bilinear")).clamp(-2, 2)
        x = x * self.gate(x.mean((2, 3), keepdim=True)).sigmoid() * self.spatial_gate(x).sigmoid()
        x = F.hardswish(self.mix(x[:, :, ::2, ::2])) + 1.5
        x = self.last(self.norm_last(x.permute(0, 2, 3, 1))).transpose(1, 3) / 2
        x = F.adaptive_max_pool2d(x, 2).flatten(1)
        return self.head(self.flat(x).unsqueeze(2).squeeze(2))


def test_every_operation_that_passes_channels_on():
    torch.manual_seed(0)
    network = randomised(Zoo())
    check_outputs(network, torch.randn(2, 4, 8, 8, dtype=torch.float64), 6)
    spaces = described(Zoo())
    assert {reason for reason in spaces.values() if reason} == {"the network's input", "the network's output"}
    assert frozenset(
        {"stem.weight:0", "stem.bias:0", "prelu.weight:0", "multiplied.weight:0×2", "multiplied.bias:0×2"}
        | {f"norm.{part}:0×2" for part in ("weight", "bias")}
        | {f"instance.{part}:0×2" for part in ("weight", "bias", "running_mean", "running_var")}
        | {"up.weight:0×2"}
    ) in set(spaces)
    assert frozenset({"last.weight:0", "last.bias:0", "flat.weight:1×4"}) in set(spaces)


class Body(nn.Module):
    """Two convolutions and a head. ``between`` computes the input of the second from the output of the first."""

    def __init__(self, between, width=8):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(4, 8, 3), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(width, 8, 3)
        self.head = nn.Linear(8, 3)
        self.between = between
        self.register_buffer("rows", torch.ones(8, 1, 1))
        self.grouped = nn.Conv2d(8, 8, 3, groups=2)
        self.many = nn.GroupNorm(2, 8)

    def forward(self, x):
        return self.head(self.c(self.between(self, self.a(x))).mean((2, 3)))


@pytest.mark.parametrize(
    ("between", "width", "reason"),
    [
        (lambda net, x: torch.cat([x, net.b(x)], 1), 16, "cat may depend on the order"),
        (lambda net, x: x.chunk(2, 1)[0], 4, "may depend on the order"),
        (lambda net, x: x[:, :4], 4, "slice of channels"),
        (lambda net, x: F.channel_shuffle(x, 2), 8, "channels|may depend on the order"),
        (lambda net, x: x.unflatten(1, (2, 4)).flatten(1, 2), 8, "splits or joins channels"),
        (lambda net, x: net.grouped(x), 8, "a grouped convolution"),
        (lambda net, x: net.many(x), 8, "group_norm of several channels"),
        (lambda net, x: x.flip(1), 8, "flip may depend on the order"),
        (lambda net, x: x + x.amax(1, keepdim=True), 8, "amax over channels"),
        (lambda net, x: F.pad(x, (0, 0, 0, 0, 0, 8)), 16, "pad of channels"),
        (lambda net, x: x * torch.arange(8.0)[:, None, None], 8, "order|parameter"),
        (lambda net, x: torch.conv2d(x, net.b.weight.tanh(), padding=1), 8, "a layer's weight is computed"),
        (lambda net, x: x + x.transpose(1, 3), 8, "different axes"),
    ],
)
def test_operations_that_depend_on_the_order_freeze_it_with_a_reason(between, width, reason):
    spaces = described(Body(between, width))
    frozen = {member: why for members, why in spaces.items() for member in members if why}
    assert "a.weight:0" in frozen
    assert re.search(reason, frozen["a.weight:0"]), frozen["a.weight:0"]
    assert any(member.startswith("c.weight:1") for member in frozen)
    assert frozenset({"c.weight:0", "c.bias:0", "head.weight:1"}) in free(Body(between, width))


def test_an_addition_merges_two_orders_and_a_buffer_follows():
    spaces = free(Body(lambda net, x: (x + net.b(x)) * net.rows))
    assert (
        frozenset({"a.weight:0", "a.bias:0", "b.weight:1", "b.weight:0", "b.bias:0", "rows:0", "c.weight:1"}) in spaces
    )


def test_a_weight_used_twice_merges_the_orders_of_its_uses():
    spaces = free(Body(lambda net, x: net.b(net.b(x).relu())))
    assert frozenset({"a.weight:0", "a.bias:0", "b.weight:1", "b.weight:0", "b.bias:0", "c.weight:1"}) in spaces


def test_a_weight_that_another_operation_reads_is_frozen():
    spaces = described(Body(lambda net, x: net.b(x) + net.b.weight.sum()))
    assert "sum" in next(why for members, why in spaces.items() if "b.weight:0" in members)
    assert "sum" in next(why for members, why in spaces.items() if "b.weight:1" in members)


def test_parametrised_weights_are_frozen():
    network = Body(lambda net, x: net.b(x))
    nn.utils.parametrizations.weight_norm(network.b)
    spaces = described(network)
    assert all("b." not in member for members in free(network) for member in members)
    assert spaces[frozenset({"a.weight:0", "a.bias:0"})]
