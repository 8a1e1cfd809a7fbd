import sys

import pytest
import torch
from torch import nn

from sparsegpt_core.errors import InputError, MissingDependencyError, ModelError
from sparsegpt_core.zoo import ModelShape, build_model, registered


@pytest.mark.parametrize(
    ("name", "image", "millions"),
    [
        ("simple_cnn", (1, 28, 28), 6.5),
        ("cifar_cnn", (3, 32, 32), 9.6),
        ("resnet18_cifar", (3, 32, 32), 11.2),
        ("vgg16_cifar", (3, 32, 32), 134.3),
    ],
)
def test_reference_networks_have_their_size(name, image, millions):
    assert name in registered()
    with torch.device("meta"):
        model = build_model(name, ModelShape(image, 10))
    assert sum(parameter.numel() for parameter in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.06)


@pytest.mark.parametrize("name", ["simple_cnn", "cifar_cnn", "resnet18_cifar"])
def test_reference_networks_take_any_small_image(name):
    model = build_model(name, ModelShape((1, 8, 8), 7)).eval()
    assert model(torch.zeros(2, 1, 8, 8)).shape == (2, 7)


@pytest.mark.parametrize(
    "spec", ["torchvision:mobilenet_v3_small", "torchvision:googlenet", "timm:mobilenetv3_small_050", "own_models:make"]
)
def test_other_sources(spec, tmp_path, monkeypatch):
    (tmp_path / "own_models.py").write_text("from torch import nn\ndef make():\n    return nn.Flatten()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    if spec.startswith("timm"):
        pytest.importorskip("timm", reason="timm is an optional extra")
    assert isinstance(build_model(spec, ModelShape((3, 64, 64), 10)), nn.Module)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("resnet18_cifra", "unknown model"),
        ("torchvision:resnet5000", "torchvision has no model"),
        ("timm:nothing_like_it", "timm"),
        ("no_such_package:make", "cannot import"),
        ("math:no_such_function", "math has no no_such_function"),
        ("os:getcwd", "made a str"),
        ("math:sqrt", "building math:sqrt failed: TypeError"),
    ],
)
def test_unknown_names_are_refused(spec, message):
    with pytest.raises((InputError, MissingDependencyError), match=message) as caught:
        build_model(spec, ModelShape((3, 32, 32), 10))
    assert "\n" not in str(caught.value)


def test_a_typo_gets_the_nearest_name():
    with pytest.raises(ModelError) as caught:
        build_model("resnet18_cifra", ModelShape((3, 32, 32)))
    assert "resnet18_cifar" in caught.value.hint


def test_without_timm_the_install_command_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingDependencyError) as caught:
        build_model("timm:resnet18", ModelShape((3, 32, 32)))
    assert "pip install" in caught.value.hint
