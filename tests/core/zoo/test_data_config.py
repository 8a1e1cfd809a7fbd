import pytest
from torchvision import models

from sparsegpt_core.zoo import data_config

IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("torchvision:resnet18", {**IMAGENET, "image": [3, 224, 224]}),
        ("torchvision:efficientnet_b3", {**IMAGENET, "image": [3, 300, 300]}),
        ("torchvision:deeplabv3_resnet50", IMAGENET),
        ("torchvision:retinanet_resnet50_fpn", {}),
        ("torchvision:no_such_network", {}),
        ("timm:tf_efficientnet_lite1", {"mean": [0.5] * 3, "std": [0.5] * 3, "image": [3, 240, 240]}),
        ("timm:no_such_network", {}),
        ("simple_cnn", {}),
        ("mynet.py:net", {}),
    ],
)
def test_the_libraries_own_preparation(spec, expected):
    if spec.startswith("timm"):
        pytest.importorskip("timm", reason="timm is an optional extra")
    assert data_config(spec) == expected


def test_every_network_of_torchvision_has_one_or_none():
    for name in models.list_models():
        config = data_config(f"torchvision:{name}")
        assert len(config.get("image", [3, 1, 1])) == 3
