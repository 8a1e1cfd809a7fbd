"""How many images a network is calibrated on, where the user does not say."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from calibration.sampling import images_by_need
from export.importing import OnnxNetwork
from export.writing import export_model
from sparsegpt_core.network import plan_layers
from sparsegpt_core.settings import PruneSettings
from sparsegpt_core.zoo import ModelShape, build_model

PLENTY = 60_000


def _plan(network, size):
    return plan_layers(network.eval(), torch.ones(1, 3, size, size), PruneSettings())


def _images(network, size, available=PLENTY, **more):
    return images_by_need(_plan(network, size), available, 80, **more)


def _wide(channels):
    conv = nn.Conv2d(channels, channels, 3, padding=1)
    return nn.Sequential(nn.Conv2d(3, channels, 1), conv, nn.Conv2d(channels, 1, 1))


@pytest.mark.parametrize("name", ["torchvision:resnet18", "torchvision:mobilenet_v2"])
def test_multiplications_are_counted_as_pytorch_counts_them(name):
    network = build_model(name, ModelShape((3, 64, 64), 10)).eval()
    with FlopCounterMode(display=False) as counter:
        network(torch.ones(1, 3, 64, 64))
    counted = sum(layer.weight.numel() * layer.vectors_per_sample for layer in _plan(network, 64))
    assert 2 * counted == counter.get_total_flops()  # a multiplication and an addition


def test_further_images_are_taken_where_they_take_little_time():
    assert [_images(_wide(256), size) for size in (56, 16, 2)] == [384, 512, 1024]
    assert _images(_wide(512), 28) == 320  # 30 % more where everything grows with the images
    assert _images(_wide(512), 14) > 320  # and more where solving does not


def test_an_onnx_file_takes_as_many_as_its_network():
    network = build_model("cifar_cnn", ModelShape((3, 32, 32), 10)).eval()
    read = OnnxNetwork(export_model(network, (3, 32, 32)))
    assert _images(read, 32) == _images(network, 32) > 256


@pytest.mark.parametrize(
    ("available", "expected"), [(1, 1), (256, 256), (300, 256), (512, 256), (1000, 500), (PLENTY, 1024)]
)
def test_a_part_of_the_training_split_is_left_to_judge(available, expected):
    assert _images(_wide(512), 1, available) == expected


def test_at_least_the_images_that_are_asked_for():
    assert _images(_wide(512), 1, fewest=2048) == 2048
    assert _images(_wide(512), 1, 3000, fewest=2048) == 1500
    assert _images(_wide(512), 1, 200, fewest=2048) == 200
