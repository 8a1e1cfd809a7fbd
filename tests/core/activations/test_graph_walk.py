"""The walk over the traced network against forward passes that stop at the layer."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from sparsegpt_core.activations import LayerDemand
from sparsegpt_core.activations import source as sources
from sparsegpt_core.activations.spill_store import ActivationStore
from sparsegpt_core.errors import InputError, ModelError
from sparsegpt_core.execution import Resources, full_precision
from sparsegpt_core.network import input_columns, matrix_to_weight, trace, weight_to_matrix
from sparsegpt_core.network.layer_plan import select_layers
from sparsegpt_core.patterns import NM
from sparsegpt_core.pruning import prune_model
from sparsegpt_core.settings import PruneSettings
from sparsegpt_core.solvers import magnitude
from sparsegpt_core.statistics import LayerStatistics
from sparsegpt_core.zoo import ModelShape, build_model
from tests.support.networks import FunctionalNet, images


class Tangle(nn.Module):
    """In-place operations, a residual, a layer that runs twice, reflecting padding, batch norm and dropout."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(4, 8, 3, padding=1)
        self.twice = nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect")
        self.norm = nn.BatchNorm2d(8)
        self.strided = nn.Conv2d(8, 8, 3, stride=2)
        self.dropout = nn.Dropout(0.5)
        self.again = nn.Linear(8, 8)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = self.stem(x).relu_()
        shortcut = x
        x = self.norm(self.twice(x))
        x += shortcut
        x = self.twice(x.relu_())
        x = self.strided(x).relu()
        x = self.dropout(x.flatten(2).mean(2))
        return self.head(self.again(self.again(x).tanh()))


class Small(nn.Module):
    """One layer to prune between two that stay dense."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(4, 8, 3)
        self.inner = nn.Conv2d(8, 8, 3)
        self.head = nn.Linear(8, 4)


class WritesIntoView(Small):
    def forward(self, x):
        x = self.stem(x)
        x[:, :2].add_(1.0)
        return self.head(self.inner(x).mean((2, 3)))


class DependsOnData(Small):
    """A branch on a value, which torch.export cannot trace."""

    def forward(self, x):
        x = self.stem(x)
        if bool(x.sum() > -1e9):
            x = x.relu()
        return self.head(self.inner(x).mean((2, 3)))


class Standardized(nn.Conv2d):
    """A convolution whose weight is computed in every forward pass."""

    def forward(self, x):
        return torch.conv2d(x, self.weight - self.weight.mean(), self.bias)


class SelfPadded(nn.Conv2d):
    """A convolution that pads its input itself, as timm's 'same' convolutions do."""

    def forward(self, x):
        return torch.conv2d(nn.functional.pad(x, (0, 1, 0, 1)), self.weight, self.bias)


def made(kind):
    torch.manual_seed(0)
    return kind()


def pruned(network, batches, traced=True, settings=None, **resources):
    network = copy.deepcopy(network)
    result = prune_model(network, batches, settings or PruneSettings(), resources=Resources(traced=traced, **resources))
    return network, result


def gathered(network, batches, traced, device="cpu"):
    """The moments of every layer. The layers before it are pruned by magnitude, which rounding does not change."""
    network, moments = copy.deepcopy(network).eval().to(device), {}
    selected = select_layers(network, batches[0].to(device), NM(2, 4))
    layers = [layer for layer in selected if layer.reason is None]
    demand = LayerDemand(layers, sum(map(len, batches)), wants_dense=True)
    runtime = Resources(traced=traced)
    with (
        torch.no_grad(),
        sources.open_source(network, batches, demand, runtime, {}) as source,
    ):
        assert bool(source.fallback) is not traced
        for layer in layers:
            statistics = LayerStatistics(layer.prunable, cross=source.compares(layer))
            source.gather(layer, statistics)
            moments[layer.name] = statistics.moments(layer.name)
            matrix = magnitude(weight_to_matrix(layer.weight), NM(2, 4))
            source.set_value(layer.weight, matrix_to_weight(matrix, layer.shape))
    return moments


def difference(first, second):
    return float((first - second).norm() / second.norm())


@pytest.mark.parametrize(
    ("kind", "batches"),
    [
        (Tangle, images()),
        (WritesIntoView, images((1, 1))),
        (FunctionalNet, images()),
        (lambda: build_model("resnet18_cifar", ModelShape((4, 8, 8))), images((2,))),
        (lambda: build_model("cifar_cnn", ModelShape((4, 8, 8))), images((2,))),
    ],
)
def test_both_sources_give_the_same_statistics(kind, batches):
    network = made(kind)
    walked, captured = (gathered(network, batches, traced) for traced in (True, False))
    assert walked.keys() == captured.keys()
    for name, moments in walked.items():
        reference = captured[name]
        assert moments.positions == reference.positions
        assert difference(moments.hessian.to_dense(), reference.hessian.to_dense()) < 1e-5, name
        if moments.cross is not None and reference.cross is not None:
            assert difference(moments.cross, reference.cross) < 1e-5, name
            assert moments.energy == pytest.approx(reference.energy, rel=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here")
def test_cuda_gathers_what_the_cpu_does():
    network, batches = made(lambda: build_model("resnet18_cifar", ModelShape((4, 8, 8)))), images()
    with full_precision(tf32=False):
        on_gpu, on_cpu = (gathered(network, batches, traced=True, device=device) for device in ("cuda", "cpu"))
    for name, moments in on_cpu.items():
        assert difference(on_gpu[name].hessian.to_dense().cpu(), moments.hessian.to_dense()) < 1e-4, name
        if moments.cross is not None:
            assert difference(on_gpu[name].cross.cpu(), moments.cross) < 1e-4, name


def test_both_sources_give_the_same_masks_and_weights():
    network, batches, settings = made(Tangle), images((20, 12)), PruneSettings(alpha=0, refit=False)
    walked, result = pruned(network, batches, settings=settings)
    captured, fallback = pruned(network, batches, traced=False, settings=settings)
    assert not result.warnings
    assert "asked for" in fallback.warnings[0]
    for (name, a), b in zip(walked.state_dict().items(), captured.state_dict().values(), strict=True):
        assert torch.equal(a == 0, b == 0), f"{name}: other masks"
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5, msg=name)


def test_threads_do_not_change_a_bit():
    network, batches, results = made(Tangle), images((6, 5, 4)), []
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(pruned(network, batches)[0])
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0].parameters(), other.parameters(), strict=True))


def test_dense_target_is_the_dense_networks_output():
    """Behind a pruned layer, the solver gets inputs of the pruned network and outputs of the dense one."""
    network, batches = made(Tangle).eval().requires_grad_(False), images()
    dense = copy.deepcopy(network)
    layers = [layer for layer in select_layers(network, batches[0], NM(2, 4)) if layer.reason is None]
    demand = LayerDemand(layers, sum(map(len, batches)), wants_dense=True)
    seen = {}

    class Recorder:
        def __init__(self):
            self.x, self.y = [], []

        def add_all(self, batches):
            for x, y, first in batches:  # threads come in any order
                self.x.append((first, x))
                self.y.append((first, y))

        def joined(self, which):
            return torch.cat([tensor for _, tensor in sorted(which, key=lambda pair: pair[0])])

    with (
        torch.no_grad(),
        sources.open_source(network, batches, demand, Resources(), {}) as source,
    ):
        for layer in layers:
            seen[layer.name] = Recorder()
            source.gather(layer, seen[layer.name])
            source.set_value(layer.module.weight, layer.module.weight * (layer.module.weight > 0))
    assert seen["twice"].y[0][1] is not None  # its second call reads the output of the first
    assert len(seen["twice"].x) == 2 * len(batches)
    network.twice.weight.mul_(network.twice.weight > 0)
    middle = torch.cat(batches)

    def before_strided(model):
        x = model.stem(middle).relu()
        return model.twice((model.norm(model.twice(x)) + x).relu())

    torch.testing.assert_close(seen["strided"].joined(seen["strided"].x), before_strided(network))
    torch.testing.assert_close(seen["strided"].joined(seen["strided"].y), dense.strided(before_strided(dense)))


def test_an_untraceable_network_falls_back_with_a_warning():
    _, result = pruned(made(DependsOnData), images())
    assert result.pruned == 1
    assert result.warnings
    assert "one forward pass for each layer" in result.warnings[0]
    assert "torch.export" in result.warnings[0]


def test_a_computed_weight_is_left_dense_with_a_reason():
    network = nn.Sequential(
        nn.Conv2d(4, 8, 3), Standardized(8, 8, 3), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(32, 2)
    )
    result = prune_model(network, images(), PruneSettings())
    assert {layer.name: layer.reason and layer.reason.value for layer in result.layers} == {
        "0": "FIRST_LAYER",
        "1": "NOT_CONSTANT",
        "2": None,
        "4": "HEAD",
    }


@pytest.mark.parametrize("traced", [True, False])
def test_padding_by_a_subclass_is_part_of_the_input(traced):
    network = nn.Sequential(nn.Conv2d(4, 8, 3), SelfPadded(8, 8, 2), nn.Flatten(), nn.Linear(288, 2))
    expected = copy.deepcopy(network).requires_grad_(False)
    data = torch.cat(images())
    _, result = pruned(network, [data], traced, PruneSettings(alpha=0, refit=False))
    layer = next(layer for layer in result.layers if layer.name == "1")
    x = nn.functional.pad(expected[0](data), (0, 1, 0, 1))
    columns = input_columns(nn.Conv2d(8, 8, 2), x)
    assert layer.positions == len(columns)


def test_a_weight_that_two_layers_share_is_pruned_once():
    torch.manual_seed(0)
    network = nn.Sequential(*(nn.Conv2d(8, 8, 1, bias=False) for _ in range(3)), nn.Flatten(), nn.Linear(8 * 9, 2))
    network[2].weight = network[1].weight
    result = prune_model(network, [torch.randn(6, 8, 3, 3)], PruneSettings())
    assert network[2].weight is network[1].weight
    first, second = result.layers[1], result.layers[2]
    assert first.status == second.status == "pruned"
    assert first.positions == second.positions == 2 * 6 * 9


def test_spilling_to_disk_changes_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(
        "sparsegpt_core.activations.memory_plan._CHUNK_BYTES", {"cpu": 4 * 8 * 8 * 8}
    )  # one sample at a time
    network, batches = made(Tangle), images()
    kept, roomy = pruned(network, batches)
    monkeypatch.setattr(sources, "available_memory", lambda device: 0)
    spilled, tight = pruned(network, batches, scratch=tmp_path)
    assert roomy.spilled_bytes == 0
    assert tight.spilled_bytes > 0
    assert all(torch.equal(a, b) for a, b in zip(kept.parameters(), spilled.parameters(), strict=True))
    assert list(tmp_path.iterdir()) == []


def test_a_memory_limit_that_is_too_small_names_the_layer():
    with pytest.raises(InputError, match=r"memory limit of .* is too small: (twice|strided|again) needs about"):
        pruned(made(Tangle), images(), memory_limit=1 << 20)


def test_store_keeps_what_fits_and_shares_memory_once(tmp_path):
    base = torch.arange(6.0)
    store = ActivationStore(2 * base.nbytes, tmp_path / "made", torch.device("cpu"))
    for chunk in range(3):
        store.put(chunk, {"a": base + chunk, "b": (base + chunk)[:2].view(1, 2), "n": 7})
    store.put(3, {"whole": base, "view": base[2:]})
    assert sorted(path.name for path in (tmp_path / "made").glob("*/*")) == ["1.pt", "2.pt", "3.pt"]
    for chunk in range(3):
        values = store.take(chunk)
        assert torch.equal(values["a"], base + chunk)
        assert torch.equal(values["b"], (base + chunk)[:2].view(1, 2))
        assert values["n"] == 7
    again = store.take(3)
    assert again["view"].untyped_storage().data_ptr() == again["whole"].untyped_storage().data_ptr()
    assert list((tmp_path / "made").glob("*/*")) == []
    store.close()
    assert list((tmp_path / "made").iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk that is always full")
def test_a_full_disk_is_one_clear_error(monkeypatch, tmp_path):
    store = ActivationStore(0, tmp_path, torch.device("cpu"))
    monkeypatch.setattr(ActivationStore, "_path", lambda self, chunk: Path("/dev/full"))
    with pytest.raises(InputError, match="cannot keep activations"):
        store.put(0, {"a": torch.zeros(1 << 20)})


def test_trace_refuses_a_layer_that_the_graph_lacks():
    network = made(Tangle).eval()
    layers = select_layers(network, images()[0], NM(2, 4))
    foreign = copy.deepcopy(layers[1])
    with pytest.raises(ModelError, match="does not use the weight of twice"):
        trace(network, images()[0], [foreign])


def test_in_place_operations_are_replaced_without_decompositions(monkeypatch):
    network, data = made(Tangle).eval(), images()[0]
    layers = [layer for layer in select_layers(network, data, NM(2, 4)) if layer.reason is None]
    monkeypatch.setattr(torch.export.ExportedProgram, "run_decompositions", None)
    program = trace(network, data, layers)
    assert not [
        step for step in program.steps if getattr(step.target, "_schema", None) and step.target._schema.is_mutable
    ]
