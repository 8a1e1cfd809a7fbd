"""Prefixes of weights' names, and parametrizations, from the wrappers that people train with."""

import copy

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils.parametrizations import orthogonal, spectral_norm, weight_norm
from torch.nn.utils.parametrize import register_parametrization
from torch.optim.swa_utils import AveragedModel

from sparsegpt_core.checkpoints import load_checkpoint, load_into, match_names
from sparsegpt_core.errors import ModelError
from sparsegpt_core.network import parametrized_tensors, remove_parametrizations


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.backbone(x).mean((2, 3)))


class Lightning(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.model = net


def compiled_part(net):
    net = copy.deepcopy(net)
    net.backbone = torch.compile(net.backbone)
    return net


WRAPPED = {
    "plain": (lambda net: net, ()),
    "DataParallel": (nn.DataParallel, ("module.",)),
    "compiled": (torch.compile, ("_orig_mod.",)),
    "Lightning": (Lightning, ("model.",)),
    "compiled in Lightning": (lambda net: Lightning(torch.compile(net)), ("model._orig_mod.",)),
    "compiled in DataParallel": (lambda net: nn.DataParallel(torch.compile(net)), ("module._orig_mod.",)),
    "averaged": (AveragedModel, ("module.",)),
    "compiled part": (compiled_part, ("_orig_mod.",)),
    "any": (lambda net: nn.ModuleDict({"student": net}), ("student.",)),
}


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("wrapper", WRAPPED)
def test_prefixes_are_removed_from_every_kind_of_file(tmp_path, wrapper, suffix):
    wrap, prefixes = WRAPPED[wrapper]
    net, path = Net(), tmp_path / f"net{suffix}"
    state = wrap(net).state_dict()
    torch.save(state, path) if suffix == ".pt" else save_file(state, path)
    other = Net()
    assert load_into(other, load_checkpoint(path).state) == prefixes
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in net.state_dict().items())


def test_a_prefix_of_the_model_itself_stays():
    model = Lightning(Net())
    assert load_into(model, model.state_dict()) == ()
    assert load_into(model, torch.compile(model).state_dict()) == ("_orig_mod.",)


def test_tensors_of_others_are_still_errors():
    state = {**Lightning(Net()).state_dict(), "loss.weight": torch.ones(2)}
    with pytest.raises(ModelError, match=r"it has loss\.weight, which the model does not have"):
        load_into(Net(), state)


def test_names_that_would_become_one_stay():
    state = {"model.weight": torch.ones(1), "weight": torch.zeros(1)}
    assert match_names(state, ["weight", "bias"]) == (state, ())
    with pytest.raises(ModelError, match=r"it has no backbone\.0\.weight"):
        load_into(Net(), nn.ModuleDict({"student": Net(), "teacher": Net()}).state_dict())


def parametrized(how):
    net = Net().eval()
    if how == "weight_norm":
        weight_norm(net.backbone[0])
    elif how == "spectral_norm":
        spectral_norm(net.head)
        spectral_norm(net.backbone[0])
    elif how == "frozen":
        weight_norm(net.head).requires_grad_(False)
    else:
        orthogonal(net.head)
    return net


@pytest.mark.parametrize("how", ["weight_norm", "spectral_norm", "orthogonal", "frozen"])
def test_parametrizations_are_replaced_by_their_values(how):
    net, images = parametrized(how), torch.randn(2, 3, 8, 8)
    state = copy.deepcopy(net.state_dict())
    expected, names = net(images), list(parametrized_tensors(net))
    assert remove_parametrizations(net) == names
    assert torch.equal(net(images), expected)
    assert {*net.state_dict()} == {*Net().state_dict()}
    assert all(isinstance(net.get_parameter(name), nn.Parameter) for name in names)

    # The file of the parametrized network, and then a file of the plain values, fit the user's factory.
    again = parametrized(how)
    assert load_into(again, state) == ()
    assert torch.equal(again(images), expected)
    again = parametrized(how)
    assert load_into(again, {f"module.{name}": value for name, value in net.state_dict().items()}) == ("module.",)
    assert parametrized_tensors(again) == {}
    assert torch.equal(again(images), expected)


def test_a_copy_keeps_its_parametrization():
    net = parametrized("weight_norm")
    remove_parametrizations(copy.deepcopy(net))
    assert list(parametrized_tensors(net)) == ["backbone.0.weight"]
    assert net(torch.ones(1, 3, 8, 8)).shape == (1, 2)


class Noise(nn.Module):
    def forward(self, weight):
        return weight + torch.randn_like(weight)


def test_a_value_that_changes_stays_parametrized():
    net = Net().eval()
    register_parametrization(net.head, "weight", Noise())
    assert remove_parametrizations(net) == []
    assert list(parametrized_tensors(net)) == ["head.weight"]
