"""The number of classes, read off the weights."""

import pytest
import torch

from sparsegpt_core.checkpoints import count_classes
from sparsegpt_core.zoo import ModelShape, build_model

IMAGE = (3, 64, 64)


@pytest.mark.parametrize(
    "spec",
    [
        "simple_cnn",
        "torchvision:resnet18",
        "torchvision:regnet_y_400mf",  # cannot be built on the meta device
        "torchvision:squeezenet1_1",  # a convolution is the last layer
        "torchvision:googlenet",  # three heads
        "torchvision:lraspp_mobilenet_v3_large",
        "torchvision:ssdlite320_mobilenet_v3_large",  # six boxes for each class
        "timm:mobilenetv3_small_050",
    ],
)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_classes_are_counted(spec, prefix):
    if spec.startswith("timm"):
        pytest.importorskip("timm", reason="timm is an optional extra")
    state = build_model(spec, ModelShape(IMAGE, 7)).state_dict()
    assert count_classes(spec, IMAGE, {f"{prefix}{name}": value for name, value in state.items()}) == 7


def test_nothing_is_counted_where_weights_contradict():
    state = build_model("torchvision:resnet18", ModelShape(IMAGE, 7)).state_dict()
    assert count_classes("torchvision:resnet18", IMAGE, {**state, "fc.bias": torch.zeros(8)}) is None
    assert count_classes("torchvision:resnet18", IMAGE, {"fc.bias": torch.tensor(1.0)}) is None
    assert count_classes("torchvision:resnet18", IMAGE, {"other": torch.zeros(8)}) is None
    assert count_classes("torchvision:raft_small", IMAGE, state) is None


def test_a_factory_is_called_only_if_it_takes_classes(tmp_path):
    file = tmp_path / "own.py"
    file.write_text(
        "from torch import nn\n"
        "calls = []\n"
        "def fixed():\n    calls.append(1)\n    return nn.Linear(2, 5)\n"
        "def free(width, num_classes=1000):\n    return nn.Linear(width, num_classes + 1)\n"
    )
    assert count_classes(f"{file}:fixed", IMAGE, {"weight": torch.ones(5, 2)}) is None
    from sparsegpt_core.user_code import import_object

    assert import_object(f"{file}:calls") == []
    state = {"weight": torch.ones(5, 2), "bias": torch.ones(5)}
    assert count_classes(f"{file}:free", IMAGE, state, {"width": 2}) == 4
