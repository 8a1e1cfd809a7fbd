import sys

import pytest
import torch
from torch import nn

from sparsegpt_core.errors import InputError, MissingDependencyError, ModelError
from sparsegpt_core.zoo import ModelShape, build_model, parse_arguments, registered


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
        ("math:sqrt", "math:sqrt needs the argument x"),
        ("math:pi", "building math:pi failed: TypeError"),
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


FILE = """
from torch import nn

class Net(nn.Sequential):
    def __init__(self, width, act="relu", *, num_classes=10):
        super().__init__(nn.Flatten(), nn.Linear(width, num_classes))
        self.act = act

def factory(**options):
    return Net(**options)

net = Net(4)
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    path = tmp_path / "mynet.py"
    path.write_text(FILE)
    return path


def test_a_class_or_a_factory_takes_arguments(file):
    arguments = parse_arguments(["width=8", "act=gelu"])
    for name in ("Net", "factory"):
        model = build_model(f"{file}:{name}", ModelShape((1, 8, 8)), arguments)
        assert (model[1].in_features, model.act, model[1].out_features) == (8, "gelu", 10)
    assert build_model(f"{file}:Net", ModelShape((1, 8, 8), 4), arguments)[1].out_features == 4
    assert build_model(f"{file}:Net", ModelShape((1, 8, 8), 4), {**arguments, "num_classes": 5})[1].out_features == 5


def test_an_instance_is_copied(file):
    first, second = (build_model(f"{file}:net", ModelShape((1, 2, 2))) for _ in range(2))
    assert first is not second
    assert torch.equal(first[1].weight, second[1].weight)
    with pytest.raises(ModelError, match="is a network, which takes no arguments"):
        build_model(f"{file}:net", ModelShape((1, 2, 2)), {"width": 4})


@pytest.mark.parametrize("wrap", ["torch.compile({})", "nn.DataParallel({})", "nn.DataParallel(torch.compile({}))"])
def test_wrappers_are_removed(file, wrap):
    """torch.export cannot trace a compiled network, and weights would have prefixes."""
    file.write_text(f"import torch\n{FILE}\ndef wrapped():\n    return {wrap.format('Net(4)')}\n")
    for network in (build_model(f"{file}:{name}", ModelShape((1, 2, 2))) for name in ("wrapped", "net")):
        assert {*network.state_dict()} == {"1.weight", "1.bias"}


def test_arguments_that_are_missing_or_unknown(file):
    with pytest.raises(ModelError, match=r"mynet\.py:Net needs the argument width") as caught:
        build_model(f"{file}:Net", ModelShape((1, 8, 8)))
    assert caught.value.hint == "Give `model_args=width=VALUE`."
    with pytest.raises(ModelError, match=r"mynet\.py:Net has no argument widht") as caught:
        build_model(f"{file}:Net", ModelShape((1, 8, 8)), {"widht": 4})
    assert caught.value.hint == "It has width, act, num_classes."
    with pytest.raises(ModelError, match="simple_cnn takes no arguments"):
        build_model("simple_cnn", ModelShape((1, 8, 8)), {"width": 4})
    assert build_model("torchvision:resnet18", ModelShape((3, 8, 8)), {"width_per_group": 64, "num_classes": 3})
    with pytest.raises(ModelError, match="unexpected keyword argument"):
        build_model("torchvision:resnet18", ModelShape((3, 8, 8)), {"widht": 32})


def test_arguments_are_read_as_python_or_text():
    texts = ["a=1", "b=1e-3", "c=(2, 3)", "d=None", "e=True", "f=false", "g=relu", "h=a=b", "i=", "j='1'", "k=[1"]
    assert parse_arguments(texts) == {
        **{"a": 1, "b": 1e-3, "c": (2, 3), "d": None, "e": True, "f": False},
        **{"g": "relu", "h": "a=b", "i": "", "j": "1", "k": "[1"},
    }
    for wrong in ("width", "=3", "a b=3", "--width=3"):
        with pytest.raises(InputError, match="is not KEY=VALUE"):
            parse_arguments([wrong])
    with pytest.raises(InputError, match="a is given twice"):
        parse_arguments(["a=1", "a=2"])


@pytest.mark.parametrize(
    ("spec", "hint"),
    [
        ("resnet18", "Did you mean torchvision:resnet18?"),
        ("mobilenetv3_small_050", "Did you mean timm:mobilenetv3_small_050?"),
        ("mynet.py", "Name the factory in it: mynet.py:FACTORY."),
        ("net.pth", "Give `weights` the file, and `model` the network."),
        ("net.onnx", "An ONNX file can be pruned, not trained: give `model` the PyTorch network."),
        ("zzz", "Use cifar_cnn, resnet18_cifar, simple_cnn, vgg16_cifar, torchvision:NAME, timm:NAME, "
         "package.module:factory or FILE.py:factory."),
    ],
)  # fmt: skip
def test_what_may_be_meant(spec, hint):
    if "timm:" in hint:
        pytest.importorskip("timm", reason="timm is an optional extra")
    with pytest.raises(ModelError, match=f"unknown model '{spec}'") as caught:
        build_model(spec, ModelShape((3, 32, 32)))
    assert caught.value.hint == hint
