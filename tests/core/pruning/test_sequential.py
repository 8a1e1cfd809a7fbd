import copy

import pytest
import torch
from torch import nn

from sparsegpt_core.errors import InputError, ModelError, NumericsError
from sparsegpt_core.execution import Resources
from sparsegpt_core.linalg import DenseHessian
from sparsegpt_core.network import input_columns, weight_to_matrix
from sparsegpt_core.network.layer_plan import select_layers
from sparsegpt_core.patterns import NM, Unstructured, find_violations
from sparsegpt_core.pruning import prune_model
from sparsegpt_core.reasons import Reason
from sparsegpt_core.settings import PruneSettings
from sparsegpt_core.solvers.sparsegpt import prune_with_sparsegpt
from sparsegpt_core.zoo import ModelShape, build_model


class Zoo(nn.Module):
    """One layer of every kind that selection distinguishes."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(4, 8, 3, padding=1)
        self.plain = nn.Conv2d(8, 12, 3, padding=1)
        self.depthwise = nn.Conv2d(12, 12, 3, groups=12)
        self.odd = nn.Conv2d(12, 6, 1)
        self.after_odd = nn.Conv2d(6, 8, 1)
        self.up = nn.ConvTranspose2d(8, 8, 2)
        self.shared = nn.Linear(8, 8)
        self.unused = nn.Linear(8, 8)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = self.after_odd(self.odd(self.depthwise(self.plain(self.stem(x)).relu())))
        x = self.up(x).mean((2, 3))
        return self.head(self.shared(self.shared(x).relu()))


def batches(count=3, channels=4, size=8):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(4, channels, size, size, generator=generator) for _ in range(count)]


def model():
    torch.manual_seed(0)
    return Zoo()


def reasons(**options):
    layers = select_layers(model(), batches()[0], NM(2, 4), **options)
    return {layer.name: layer.reason for layer in layers}


def test_every_layer_has_its_reason_in_running_order():
    assert list(reasons().items()) == [
        ("stem", Reason.FIRST_LAYER),
        ("plain", None),
        ("depthwise", Reason.GROUPED),
        ("odd", None),
        ("after_odd", Reason.CHANNELS_NOT_MULTIPLE),
        ("up", Reason.TRANSPOSED),
        ("shared", None),
        ("head", Reason.HEAD),
        ("unused", Reason.NOT_REACHED),
    ]


def test_include_overrides_defaults_and_exclude_but_not_structure():
    chosen = reasons(exclude=["*"], include=["stem", "head", "depthwise"])
    assert {name for name, reason in chosen.items() if reason is None} == {"stem", "head"}
    assert chosen["plain"] == Reason.EXCLUDED
    assert chosen["depthwise"] == Reason.GROUPED


def test_a_glob_that_matches_nothing_is_an_error_with_similar_names():
    with pytest.raises(InputError, match="'plian' matches no layer") as caught:
        reasons(exclude=["plian"])
    assert "plain" in caught.value.hint


def test_pruned_weights_have_the_pattern_and_nothing_else_changes():
    network = model().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    result = prune_model(network, batches(), PruneSettings(bias=False, variance=False))
    pruned = {layer.name for layer in result.layers if layer.status == "pruned"}
    assert pruned == {"plain", "odd", "shared"}
    for name, value in network.state_dict().items():
        if name.removesuffix(".weight") in pruned:
            assert find_violations(value.numpy(), NM(2, 4), axis=1).count == 0
        else:
            assert torch.equal(value, before[name]), name
    assert network.training
    assert network.head.training


@pytest.mark.parametrize("ends_in_a_row", [True, False])
def test_variance_is_kept_where_the_network_gives_one_row_for_each_sample(ends_in_a_row):
    def weights(**settings):
        torch.manual_seed(0)
        tail = [nn.AdaptiveAvgPool2d(1), nn.Flatten()] if ends_in_a_row else []
        network = nn.Sequential(nn.Conv2d(4, 8, 1), nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 1), *tail)
        images = torch.randn(16, 4, 3, 3)
        result = prune_model(network, images, PruneSettings(include=("3",), **settings))
        return result.keeps_variance, network[3].weight

    (kept, default), (_, wanted) = weights(), weights(variance=ends_in_a_row)
    assert kept == ends_in_a_row
    assert torch.equal(default, wanted)
    assert not torch.equal(default, weights(variance=not ends_in_a_row)[1])


class _Grouped(nn.Module):
    """A pruned layer, and grouped convolutions that read it: one with a bias, one with a batch norm after it."""

    def __init__(self):
        super().__init__()
        self.stem, self.expand = nn.Conv2d(4, 8, 3), nn.Conv2d(8, 16, 1)
        self.depthwise = nn.Conv2d(16, 16, 3, groups=16)
        self.grouped, self.norm = nn.Conv2d(16, 8, 3, groups=4, bias=False), nn.BatchNorm2d(8)
        self.head = nn.Conv2d(8, 3, 1)

    def forward(self, x):
        x = self.expand(self.stem(x).relu()).relu()
        return self.head(self.norm(self.grouped(self.depthwise(x).relu())))


@pytest.mark.parametrize("resources", [Resources(), Resources(traced=False)])
def test_grouped_convolutions_keep_the_mean_and_variance_of_their_outputs(resources):
    torch.manual_seed(0)
    dense = _Grouped().eval()
    network, data = copy.deepcopy(dense), torch.randn(64, 4, 9, 9)
    result = prune_model(network, [data], PruneSettings(variance=True), resources=resources)
    layers = {layer.name: layer for layer in result.layers}
    assert [layer.name for layer in result.layers if layer.status == "pruned"] == ["expand"]
    for name, after in (("depthwise", "depthwise"), ("grouped", "norm")):
        expected, found = (_outputs(each, after, data) for each in (dense, network))
        assert not torch.allclose(expected, found, rtol=1e-3, atol=1e-3)
        for moment in (torch.mean, torch.var):
            assert torch.allclose(moment(found, dim=(0, 2, 3)), moment(expected, dim=(0, 2, 3)), rtol=1e-3, atol=1e-4)
        assert (layers[name].status, layers[name].reason) == ("dense", Reason.GROUPED)
        assert 0 < layers[name].relative_error < 1
    expected, found = (_outputs(each, "depthwise", data) for each in (dense, network))
    energy = (expected - dense.depthwise.bias.detach()[:, None, None]).square().sum()
    error = (expected - found).square().sum() / energy
    assert layers["depthwise"].relative_error == pytest.approx(float(error), rel=1e-3)
    assert torch.equal(network.stem.weight, dense.stem.weight)
    assert torch.equal(network.head.weight, dense.head.weight)


def _outputs(network, name, data):
    found = []
    with network.get_submodule(name).register_forward_hook(lambda *call: found.append(call[2])), torch.no_grad():
        network(data)
    return found[0]


def test_an_excluded_grouped_convolution_stays_as_it_is():
    torch.manual_seed(0)
    dense = _Grouped().eval()
    network = copy.deepcopy(dense)
    prune_model(network, [torch.randn(64, 4, 9, 9)], PruneSettings(exclude=["depthwise"], variance=True))
    assert torch.equal(network.depthwise.weight, dense.depthwise.weight)
    assert not torch.equal(network.grouped.weight, dense.grouped.weight)


def test_each_layer_sees_the_network_as_pruned_so_far():
    """The second layer is solved for the pruned first layer's output."""
    network = nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(8 * 16, 4))
    data = batches()
    first, second = network[0], network[2]
    dense = weight_to_matrix(second.weight.detach().clone())
    prune_model(
        network, data, PruneSettings(include=("0",), alpha=0, refit=False, bias=False, damping=0.01, mask="adaptive")
    )
    with torch.no_grad():
        columns = torch.cat([input_columns(second, first(batch).relu()) for batch in data])
    expected = prune_with_sparsegpt(dense, DenseHessian(columns.T @ columns / len(columns)).factor().upper, NM(2, 4))
    torch.testing.assert_close(weight_to_matrix(second.weight.detach()), expected, rtol=1e-3, atol=1e-5)


def test_a_layer_called_twice_sees_both_inputs():
    result = prune_model(model(), batches(), PruneSettings())
    shared = next(layer for layer in result.layers if layer.name == "shared")
    assert shared.positions == 2 * 3 * 4


def test_reported_errors_are_those_of_the_layer_output():
    network = nn.Sequential(nn.Conv2d(4, 8, 3, bias=False), nn.Flatten(), nn.Linear(8 * 36, 4))
    data = torch.cat(batches())
    network.requires_grad_(False)
    before = network[0](data)
    result = prune_model(network, [data], PruneSettings(include=("0",)))
    expected = (network[0](data) - before).square().sum() / before.square().sum()
    assert result.layers[0].relative_error == pytest.approx(float(expected), rel=1e-3)


def test_magnitude_reads_no_image():
    result = prune_model(model(), batches(), PruneSettings(method="magnitude"))
    assert all(layer.relative_error is None and layer.positions is None for layer in result.layers)
    assert result.pruned == 3


def test_unstructured_has_no_channel_rule():
    network = model()
    prune_model(network, batches(), PruneSettings(Unstructured(0.75)))
    assert float((network.after_odd.weight == 0).float().mean()) == pytest.approx(0.75)


def test_batch_norm_and_dropout_run_in_eval_mode():
    network = build_model("cifar_cnn", ModelShape((3, 8, 8))).train()
    before = {name: value.clone() for name, value in network.state_dict().items() if "running" in name}
    one = [torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(2))]
    prune_model(network, one, PruneSettings(bias=False))
    assert before
    assert all(torch.equal(network.state_dict()[name], value) for name, value in before.items())


def test_same_input_same_result():
    first, second = model(), model()
    prune_model(first, batches(), PruneSettings())
    prune_model(second, batches(), PruneSettings())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_nothing_to_prune_is_an_error_with_reasons():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 2))
    with pytest.raises(ModelError, match="nothing to prune to 2:4: 1 CHANNELS_NOT_MULTIPLE, 1 HEAD"):
        prune_model(network, batches(channels=3), PruneSettings())


def test_no_layer_at_all():
    with pytest.raises(ModelError, match="no convolution or linear layer"):
        prune_model(nn.Sequential(nn.BatchNorm2d(4)), batches(), PruneSettings())


def test_images_of_the_wrong_shape():
    with pytest.raises(ModelError, match=r"does not take images of shape \(3, 8, 8\)"):
        prune_model(model(), batches(channels=3), PruneSettings())


def test_nan_weight_is_named():
    network = model()
    with torch.no_grad():
        network.odd.weight[0, 0] = float("nan")
    with pytest.raises(NumericsError, match=r"odd\.weight"):
        prune_model(network, batches(), PruneSettings())


def test_activations_that_overflow_name_the_layer():
    network = model()
    with torch.no_grad():
        network.plain.weight.fill_(1e38)
    with pytest.raises(NumericsError, match="odd"):
        prune_model(network, batches(), PruneSettings(exclude=("plain",)))


def test_parametrized_weight_is_refused():
    network = model()
    nn.utils.parametrizations.weight_norm(network.plain)
    with pytest.raises(ModelError, match="plain"):
        prune_model(network, batches(), PruneSettings())


def test_progress_counts_layers():
    seen = []
    prune_model(model(), batches(), PruneSettings(), lambda *step: seen.append(step))
    assert seen == [("prune", done, 3) for done in range(4)]


class Folded(nn.Module):
    """A convolution whose batch norm can absorb shifts, and one layer that runs twice."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(4, 8, 3, padding=1)
        self.conv = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.twice = nn.Linear(8, 8)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = self.norm(self.conv(self.stem(x).relu())).relu().mean((2, 3))
        return self.head(self.twice(self.twice(x).relu()))


@pytest.mark.parametrize("pattern", [NM(2, 4), Unstructured(0.5)])
def test_int8_weights_keep_the_mask_the_outputs_and_their_means(pattern):
    torch.manual_seed(0)
    network, data = Folded().eval(), batches(8)
    plain = prune_model(copy.deepcopy(network), data, PruneSettings(pattern=pattern))
    result = prune_model(network, data, PruneSettings(pattern=pattern), int8_weights=True)
    assert not plain.int8_weights
    assert [layer.relative_error for layer in result.layers] == [layer.relative_error for layer in plain.layers]
    assert set(result.int8_weights) == {"conv", "twice"}
    for name, int8_weight in result.int8_weights.items():
        weight = network.get_submodule(name).weight.detach()
        assert int8_weight.values.dtype == torch.int8
        assert torch.equal(int8_weight.values != 0, (int8_weight.values != 0) & (weight != 0))
        rounded = int8_weight.values * int8_weight.scales.reshape(-1, *[1] * (weight.dim() - 1))
        assert (rounded - weight).norm() < 0.01 * weight.norm()
    # The shift makes up for what rounding moves the outputs' means by.
    conv, int8_weight = network.conv, result.int8_weights["conv"]
    inputs = torch.cat([network.stem(batch).relu() for batch in data]).detach()
    rounded = int8_weight.values * int8_weight.scales[:, None, None, None]
    moved = (conv(inputs) - conv._conv_forward(inputs, rounded, None)).mean((0, 2, 3)).detach()
    torch.testing.assert_close(int8_weight.shift, moved, rtol=1e-3, atol=1e-5)
