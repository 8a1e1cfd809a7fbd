"""Permuting channels lowers losses and keeps outputs; channels that stay have a reason."""

import copy

import pytest
import torch
import torchvision
from torch import nn

from sparsegpt_core.errors import CheckFailedError, InputError, NumericsError
from sparsegpt_core.network import weight_to_matrix
from sparsegpt_core.network.layer_plan import select_layers
from sparsegpt_core.patterns import NM
from sparsegpt_core.permutation import permute as permutation
from sparsegpt_core.permutation import permute_channels
from sparsegpt_core.permutation.permute import apply_order, inverse
from sparsegpt_core.solvers import magnitude

PATTERN = NM(2, 4)


class Residual(nn.Module):
    """A residual block, a concatenation, and a linear layer after a flatten."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(4, 16, 3, padding=1)
        self.one = nn.Conv2d(16, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.two = nn.Conv2d(16, 16, 3, padding=1)
        self.mixed = nn.Conv2d(32, 16, 1)
        self.flat = nn.Linear(16 * 4, 16)
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        x = self.stem(x).relu()
        x = x + self.two(self.norm(self.one(x)).relu())
        x = self.mixed(torch.cat([x, x.sin()], 1))
        return self.head(self.flat(nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)).relu())


def made(seed=0):
    torch.manual_seed(seed)
    network = Residual().eval().requires_grad_(False)
    for parameter in network.parameters():  # channels of several scales
        parameter.mul_(torch.randn(parameter.shape[:2] + (1,) * (parameter.dim() - 2)).exp())
    return network


def images(count=3, size=8):
    return torch.randn(count, 4, size, size, generator=torch.Generator().manual_seed(1))


def todo(network, sample):
    return select_layers(network, sample, PATTERN)


def squares(layers):
    """A stand-in for saliencies: w²."""
    return {layer.name: weight_to_matrix(layer.prunable.weight).square() for layer in layers if layer.reason is None}


def lost(layer):
    """The fraction of a layer's w² that 2:4 pruning by magnitude removes."""
    matrix = weight_to_matrix(layer.prunable.weight)
    return float(1 - magnitude(matrix, PATTERN).square().sum() / matrix.square().sum())


def permuted(network, sample, **how):
    layers = todo(network, sample)
    return permute_channels(network, sample, squares(layers), layers, PATTERN, **how), layers


def test_outputs_stay_and_losses_fall_as_reported():
    network, sample = made(), images()
    expected, dense = network(sample), copy.deepcopy(network)
    before = {layer.name: lost(layer) for layer in todo(dense, sample)}
    result, layers = permuted(network, sample)
    torch.testing.assert_close(network(sample), expected, rtol=1e-4, atol=1e-4)
    after = {layer.name: lost(layer) for layer in layers}
    moved = {space.layers: space for space in result.spaces if space.order is not None}
    assert set(moved) == {("two",)}
    for names, space in moved.items():
        assert space.before == pytest.approx(sum(before[name] for name in names), rel=1e-4)
        assert space.after == pytest.approx(sum(after[name] for name in names), rel=1e-4)
        assert space.after < space.before
    assert after["flat"] == pytest.approx(before["flat"])
    assert not result.cut_off
    assert result.seconds > 0


def test_channels_that_keep_their_order_have_a_reason():
    result, _ = permuted(made(), images())
    stays = {space.layers: space.reason for space in result.spaces if space.reason}
    assert stays[("flat",)] == "read only flattened: neighbouring columns are positions"
    assert "cat" in stays[("mixed",)]
    assert "sin" in stays[("one",)]
    assert len(stays) == 3


def test_the_inverse_restores_every_bit():
    network, sample = made(), images()
    dense = copy.deepcopy(network.state_dict())
    result, _ = permuted(network, sample)
    for space in result.spaces:
        if space.order is not None:
            assert torch.equal(space.order[inverse(space.order)], torch.arange(space.space.size))
            apply_order(space.space, inverse(space.order))
    assert all(torch.equal(tensor, dense[name]) for name, tensor in network.state_dict().items())


def test_every_space_of_a_real_network_gets_its_share_of_the_time():
    torch.manual_seed(0)
    network = torchvision.models.resnet18(num_classes=8).eval().requires_grad_(False)
    result, layers = permuted(network, torch.randn(2, 3, 64, 64), seconds=2)
    assert sorted(name for space in result.spaces for name in space.layers) == sorted(
        layer.name for layer in layers if layer.reason is None
    )
    assert len(result.spaces) == 12  # four stages and the insides of eight blocks
    assert all(space.after < space.before for space in result.spaces)
    assert result.cut_off


def test_time_that_a_search_does_not_need_goes_to_the_others(monkeypatch):
    network, limits, search = made(), [], permutation.search_order

    def quick(saliencies, pattern, *, seconds, seed):
        limits.append(seconds)
        return search(saliencies, pattern, seed=seed)

    monkeypatch.setattr(permutation, "search_order", quick)
    result, _ = permuted(network, images(), seconds=1000)
    assert not result.cut_off
    assert limits[-1] == pytest.approx(1000, rel=0.1)
    assert all(limit > 0 for limit in limits)


def test_layers_count_relative_to_their_energy():
    network, sample = made(), images()
    layers = todo(network, sample)
    halves = {name: 2.0 * float(matrix.sum()) for name, matrix in squares(layers).items()}
    plain, _ = permuted(copy.deepcopy(network), sample)
    result = permute_channels(network, sample, squares(layers), layers, PATTERN, energies=halves)
    assert [2 * space.before for space in result.spaces] == pytest.approx([space.before for space in plain.spaces])


def test_a_wrong_order_is_undone_and_named(monkeypatch):
    """A forgotten producer of the channels changes the outputs."""
    network, sample = made(), images()
    dense = copy.deepcopy(network.state_dict())
    find = permutation.find_spaces

    def forgetful(model, sample):
        return [
            permutation.ChannelSpace(space.size, tuple(m for m in space.members if m.reads), space.frozen)
            for space in find(model, sample)
        ]

    monkeypatch.setattr(permutation, "find_spaces", forgetful)
    with pytest.raises(CheckFailedError, match="the order of the channels that two read"):
        permuted(network, sample)
    assert all(torch.equal(tensor, dense[name]) for name, tensor in network.state_dict().items())


def test_a_search_without_time_leaves_the_outputs_and_is_reported():
    network, sample = made(), images()
    expected = network(sample)
    result, _ = permuted(network, sample, seconds=0)
    assert result.cut_off
    torch.testing.assert_close(network(sample), expected, rtol=1e-4, atol=1e-4)


def test_a_finished_search_is_loaded_at_any_speed(tmp_path, monkeypatch):
    """A search that was cut off would end differently on a busier machine."""
    first, again = made(), made()
    found, _ = permuted(first, images(), seconds=0.02, finished=tmp_path)
    monkeypatch.setattr("sparsegpt_core.permutation.permute.search_order", pytest.fail)
    repeated, _ = permuted(again, images(), seconds=0.02, finished=tmp_path)
    assert [space.to_json() for space in repeated.spaces] == [space.to_json() for space in found.spaces]
    assert repeated.cut_off == found.cut_off
    for one, other in zip(first.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    monkeypatch.undo()
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:-9])
    damaged, _ = permuted(made(), images(), finished=tmp_path)
    assert not damaged.cut_off  # searched anew


def test_training_mode_is_restored_and_progress_reported():
    network, told = made().train(), []
    permuted(network, images(), progress=lambda *step: told.append(step))
    assert network.training
    assert told[0] == ("permute", 0, len(told) - 1)
    assert told[-1] == ("permute", len(told) - 1, len(told) - 1)


def test_bad_saliencies_are_refused_by_name():
    network, sample = made(), images()
    layers = todo(network, sample)
    good = squares(layers)
    with pytest.raises(InputError, match="two: its saliencies are missing"):
        permute_channels(network, sample, {k: v for k, v in good.items() if k != "two"}, layers, PATTERN)
    with pytest.raises(InputError, match="two: its saliencies are of shape"):
        permute_channels(network, sample, {**good, "two": good["two"][:, :4]}, layers, PATTERN)
    with pytest.raises(NumericsError, match="two"):
        permute_channels(network, sample, {**good, "two": good["two"] / 0}, layers, PATTERN)
