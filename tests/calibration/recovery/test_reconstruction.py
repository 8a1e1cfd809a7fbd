"""Block-wise reconstruction: the blocks, their targets, and when the weights stay the same."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision.models import vgg16_bn
from torchvision.ops import Conv2dNormActivation

from calibration.data import Data, open_data
from calibration.evaluation import distance, outputs_of
from calibration.recovery import ReconstructResult, ReconstructSettings, reconstruct
from calibration.recovery.block_fitting import BlockData, BlockFit, match_channel_order
from calibration.recovery.blocks import find_blocks
from calibration.recovery.reconstruction import BlockResult
from calibration.sampling import calibration_batches, held_out_batches
from calibration.training import FrozenZeros, TrainSettings, Unfinished, train
from sparsegpt_cli.figures import draw_blocks
from sparsegpt_core.errors import DataError, InputError, ModelError
from sparsegpt_core.network import plan_layers
from sparsegpt_core.patterns import NM
from sparsegpt_core.permutation import permute_channels
from sparsegpt_core.progress import silent
from sparsegpt_core.pruning import prune_model
from sparsegpt_core.settings import PruneSettings
from sparsegpt_core.zoo import ModelShape, build_model

PATTERN = NM(1, 4)
PRUNED = ("3", "6.conv1", "6.conv2", "9")


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm = nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.relu, self.conv2 = nn.ReLU(inplace=True), nn.Conv2d(16, 16, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.relu(x + self.conv2(self.relu(self.norm(self.conv1(x)))))
        return y


def dense_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, stride=2, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(inplace=True),
        Residual(),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(256, 32),
        nn.ReLU(),
        nn.Linear(32, 10),
    )


@pytest.fixture(scope="module")
def digits() -> Data:
    return open_data("digits")


@pytest.fixture(scope="module")
def trained(digits: Data) -> nn.Sequential:
    model = dense_net()
    train(model, digits, TrainSettings(epochs=4, precision="fp32"))
    return model


@pytest.fixture(scope="module")
def images(digits: Data) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """To learn from, to judge by, and the test split."""
    assert digits.evaluation is not None
    test = [torch.from_numpy(batch) for batch, _ in digits.evaluation.batches(300)]
    split = digits.training
    return calibration_batches(split, 128, 32, 0), held_out_batches(split, 128, 64, 32, 0), test


@pytest.fixture
def sparse(trained: nn.Sequential, images: tuple[list[Tensor], ...]) -> nn.Sequential:
    model = copy.deepcopy(trained)
    result = prune_model(model, images[0], PruneSettings(PATTERN, "magnitude"))
    assert tuple(layer.name for layer in result.layers if layer.status == "pruned") == PRUNED
    return model


def run(
    sparse: nn.Module, dense: nn.Module, images: tuple[list[Tensor], ...], *more: Any, **settings: Any
) -> ReconstructResult:
    chosen = ReconstructSettings(**{"epochs": 5, "learning_rate": 0.03} | settings)
    return reconstruct(sparse, dense, images[0], images[1], PRUNED, PATTERN, chosen, *more)


def test_outputs_approach_the_dense_network_and_zeros_stay_zero(
    trained: nn.Sequential, sparse: nn.Sequential, images: tuple[list[Tensor], ...]
) -> None:
    dense = copy.deepcopy(trained).train()
    zeros = {name: sparse.get_parameter(f"{name}.weight").detach() == 0 for name in PRUNED}
    statistics = [each.clone() for name, each in sparse.named_buffers()]
    reference = outputs_of(trained, images[2])
    before = distance(reference, outputs_of(sparse, images[2]))
    steps = []

    def progress(stage: str, done: int, total: int) -> None:
        assert (stage, total) == ("reconstruct", 30)
        assert not any(
            sparse.get_parameter(f"{name}.weight")[mask].view(torch.int32).any() for name, mask in zeros.items()
        )
        steps.append(done)

    result = run(sparse, dense, images, progress, epochs=10)
    after = distance(reference, outputs_of(sparse, images[2]))
    assert [block.name for block in result.blocks] == ["3 … 5", "6", "9 … 11"]
    assert [block.layers for block in result.blocks] == [("3",), ("6.conv1", "6.conv2"), ("9",)]
    assert all(block.after < 0.8 * block.before for block in result.blocks)
    assert after.logit_error < before.logit_error / 4
    assert after.disagreement < before.disagreement / 2
    assert result.kept == 3
    assert result.end.logit_error < result.start.logit_error / 4
    assert result.untouched == ()
    assert steps[0] == 0
    assert steps[-1] == 30
    assert steps == sorted(steps)
    torch.testing.assert_close([each for _, each in sparse.named_buffers()], statistics, rtol=0, atol=0)
    torch.testing.assert_close(dict(dense.state_dict()), dict(trained.state_dict()), rtol=0, atol=0)
    assert dense[8].training  # put back into its mode


def test_errors_are_those_of_the_blocks_outputs(
    trained: nn.Sequential, sparse: nn.Sequential, images: tuple[list[Tensor], ...]
) -> None:
    held_out = torch.cat(images[1])
    with torch.no_grad():
        given, wanted = (model.eval()[:6](held_out).double() for model in (sparse, trained))
    expected = float((given - wanted).square().sum() / wanted.square().sum())
    result = run(sparse, trained, images, epochs=1)
    assert result.blocks[0].before == pytest.approx(expected, rel=1e-4)
    with torch.no_grad():
        given = sparse.eval()[:6](held_out).double()
    expected = float((given - wanted).square().sum() / wanted.square().sum())
    assert result.blocks[0].after == pytest.approx(expected, rel=1e-4)
    assert result.end == distance(outputs_of(trained, images[1]), outputs_of(sparse, images[1]))


def test_weights_stay_the_same_when_no_step_helps(
    trained: nn.Sequential, sparse: nn.Sequential, images: tuple[list[Tensor], ...]
) -> None:
    before = copy.deepcopy(sparse.state_dict())
    result = run(sparse, trained, images, learning_rate=1e6)
    torch.testing.assert_close(dict(sparse.state_dict()), dict(before), rtol=0, atol=0)
    assert result.kept == 0
    assert result.end == result.start
    assert all(block.before == block.after and block.epochs == 4 for block in result.blocks)


def test_the_network_nearest_to_the_dense_one_is_kept(
    trained: nn.Sequential, sparse: nn.Sequential, images: tuple[list[Tensor], ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    start = distance(outputs_of(trained, images[1]), outputs_of(sparse, images[1]))
    errors, states = iter([1.0, 0.9, 0.5, 0.7]), []

    def scripted(*_: object) -> Any:
        states.append(copy.deepcopy(sparse.state_dict()))
        return replace(start, logit_error=next(errors))

    monkeypatch.setattr("calibration.recovery.reconstruction.distance", scripted)
    result = run(sparse, trained, images, epochs=1)
    assert result.kept == 2
    assert result.end.logit_error == 0.5
    torch.testing.assert_close(dict(sparse.state_dict()), dict(states[2]), rtol=0, atol=0)
    assert not torch.equal(states[2]["9.weight"], states[3]["9.weight"])


def test_a_killed_reconstruction_continues_to_the_same_weights(
    trained: nn.Sequential,
    sparse: nn.Sequential,
    images: tuple[list[Tensor], ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other, third, path = copy.deepcopy(sparse), copy.deepcopy(sparse), tmp_path / "net.unfinished"
    whole = run(sparse, trained, images, epochs=2)

    def interrupt(_: str, done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr("calibration.training.unfinished_training._MIN_PAUSE_PER_WRITE", 0)
    with pytest.raises(KeyboardInterrupt):
        run(other, trained, images, interrupt, Unfinished(path, {}, seconds=0), epochs=2)
    torch.rand(3)
    seen: list[int] = []
    rest = run(third, trained, images, lambda _, done, total: seen.append(done), Unfinished(path, {}), epochs=2)
    assert seen[0] == 5
    assert rest == whole
    torch.testing.assert_close(dict(third.state_dict()), dict(sparse.state_dict()), rtol=0, atol=0)
    assert not path.exists()


class Killed(Exception):
    """Ends the process at once: nothing is written after it."""


@pytest.mark.parametrize("kind", [Killed, KeyboardInterrupt])
@pytest.mark.parametrize(("rate", "step"), [(0.03, 1), (0.03, 6), (0.03, 14), (30.0, 22)])
def test_a_reconstruction_ended_at_any_step_continues_to_the_same_weights(
    trained: nn.Sequential,
    sparse: nn.Sequential,
    images: tuple[list[Tensor], ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: type[BaseException],
    rate: float,
    step: int,
) -> None:
    """Within an epoch of four steps, and in a later attempt at a block: the rate of 30 is too high for the first."""
    other, third, path = copy.deepcopy(sparse), copy.deepcopy(sparse), tmp_path / "net.unfinished"
    whole = run(sparse, trained, images, epochs=3, learning_rate=rate)
    taken: list[int] = []

    class Ending(Unfinished):
        def keep(self, state: Any) -> None:
            super().keep(state)
            taken.append(1)
            if len(taken) == step:
                raise kind

    monkeypatch.setattr("calibration.training.unfinished_training._MIN_PAUSE_PER_WRITE", 0)
    with pytest.raises(kind):  # a kill leaves what was written by time, Ctrl-C what it writes itself
        run(
            other,
            trained,
            images,
            silent,
            Ending(path, {}, seconds=0 if kind is Killed else 1e6),
            epochs=3,
            learning_rate=rate,
        )
    state = Unfinished(path, {}).load()[0]
    assert state is not None
    assert state["done"] == step
    assert (state["attempt"] > 0) == (rate > 1)
    resumed: list[int] = []

    class Counting(Unfinished):
        def keep(self, state: Any) -> None:
            resumed.append(1)

    rest = run(third, trained, images, silent, Counting(path, {}), epochs=3, learning_rate=rate)
    assert rest == whole
    torch.testing.assert_close(dict(third.state_dict()), dict(sparse.state_dict()), rtol=0, atol=0)
    assert len(resumed) > 0
    assert not path.exists()


def test_permuted_channels_are_matched(trained: nn.Sequential, images: tuple[list[Tensor], ...]) -> None:
    model = copy.deepcopy(trained).eval()
    layers = plan_layers(model, images[0][0][:2], PruneSettings(PATTERN))
    torch.manual_seed(1)
    saliencies = {name: torch.rand(model.get_submodule(name).weight.flatten(1).shape) for name in PRUNED}
    assert permute_channels(model, images[0][0][:2], saliencies, layers, PATTERN, seed=3)
    assert not torch.equal(model[6].conv2.weight, trained[6].conv2.weight)
    prune_model(model, images[0], PruneSettings(PATTERN, "magnitude"))
    result = run(model, trained, images)
    assert all(block.after < block.before < 0.5 for block in result.blocks)
    assert result.end.logit_error < result.start.logit_error / 2


def test_no_held_out_images_or_no_block_is_an_error(
    trained: nn.Sequential, sparse: nn.Sequential, images: tuple[list[Tensor], ...]
) -> None:
    with pytest.raises(DataError, match="no images are held out"):
        run(sparse, trained, (images[0], []))
    with pytest.raises(ModelError, match="groups have too many non-zeros"):
        run(copy.deepcopy(trained), trained, images)
    with pytest.raises(ModelError, match="fails on images"):
        run(sparse, trained, ([torch.zeros(4, 3, 8, 8)], images[1]))
    with pytest.raises(ModelError, match=r"3 … 5 needs about .* GiB for its inputs and outputs on 192 images"):
        reconstruct(sparse, trained, *images[:2], PRUNED, PATTERN, ReconstructSettings(), memory_limit=1 << 20)
    tied = TwoInputs()
    settings = ReconstructSettings()
    with pytest.raises(ModelError, match="the model has no block"):
        reconstruct(tied, tied, [torch.rand(4, 4)], [torch.rand(4, 4)], ("layer",), NM(3, 4), settings)


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"batch_size": 0}, {"learning_rate": 0.0}, {"seed": -1}])
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        ReconstructSettings(**wrong)


class TwoInputs(nn.Module):
    """Runs its one layer twice."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.layer.weight.data[:, 0] = 0

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(self.layer(x))
        return y


def blocks_of(model: nn.Module, pruned: list[str], shape: tuple[int, ...]) -> list[str]:
    return [f"{b.name}: {' '.join(b.layers)}" for b in find_blocks(model, pruned, torch.rand(2, *shape))]


def convolutions(model: nn.Module, start: str = "") -> list[str]:
    found = (name for name, module in model.named_modules() if isinstance(module, (nn.Conv2d, nn.Linear)))
    return [name for name in found if name.startswith(start)]


def test_blocks_of_a_resnet_are_its_residual_blocks() -> None:
    model = build_model("resnet18_cifar", ModelShape((1, 8, 8), 10))
    pruned = convolutions(model, "layer")
    found = find_blocks(model, pruned, torch.rand(2, 1, 8, 8))
    assert [block.name for block in found] == [f"layer{stage}.{number}" for stage in (1, 2, 3, 4) for number in (0, 1)]
    assert found[2].layers == ("layer2.0.conv1", "layer2.0.conv2", "layer2.0.downsample.0")
    assert [layer for block in found for layer in block.layers] == pruned
    assert blocks_of(model, ["layer1.1.conv2", "fc"], (1, 8, 8)) == ["layer1.1: layer1.1.conv2", "fc: fc"]


def test_blocks_of_plain_networks_are_runs_of_two_to_four_pruned_layers() -> None:
    model = build_model("cifar_cnn", ModelShape((1, 8, 8), 10))
    pruned = ["conv1b", "conv2a", "conv2b", "conv3a", "conv3b", "fc1"]
    assert blocks_of(model, pruned, (1, 8, 8)) == [
        "conv1b … pool2: conv1b conv2a conv2b",
        "conv3a … fc2: conv3a conv3b fc1",
    ]
    with torch.device("meta"):
        vgg = vgg16_bn(num_classes=10)
    pruned = convolutions(vgg, "features")[1:]
    found = find_blocks(vgg, [*pruned, "classifier.0", "classifier.3"], torch.rand(1, 3, 32, 32))
    assert [len(block.layers) for block in found] == [4, 4, 4, 2]
    assert [block.name for block in found][2:] == ["features.30 … features.43", "classifier.0 … classifier.6"]


def test_chains_in_chains_are_one() -> None:
    model = nn.Sequential(
        Conv2dNormActivation(3, 8),
        nn.Sequential(Conv2dNormActivation(8, 8), Conv2dNormActivation(8, 8), Residual16()),
        Conv2dNormActivation(8, 8),
        nn.Sequential(Conv2dNormActivation(8, 8, 1), nn.Identity()),
    )
    pruned = convolutions(model)[1:]
    assert blocks_of(model, pruned, (3, 6, 6)) == [
        "1.0.0 … 1.1.2: 1.0.0 1.1.0",
        "1.2: 1.2.b 1.2.a",
        "2.0 … 3.1: 2.0 3.0.0",
    ]


class Residual16(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.b, self.a = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.b(self.a(x))
        return y


class Awkward(nn.Module):
    """Two inputs to a module, a module that runs twice, one that shares its weight, one that never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.pair = Pair()
        self.twice, self.once = nn.Linear(4, 4), nn.Linear(4, 4)
        self.tied, self.other = nn.Linear(4, 4), nn.Linear(4, 4)
        self.other.weight, self.never = self.tied.weight, nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.once(self.pair(self.twice(self.twice(x)), x))
        return self.other(self.tied(y)) + y


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        z: Tensor = self.right(y) + self.left(x)
        return z


def test_a_module_that_takes_several_tensors_is_not_a_block() -> None:
    model = Awkward()
    assert blocks_of(model, convolutions(model), (4,)) == [
        "pair.right: pair.right",
        "pair.left: pair.left",
        "once: once",
    ]


def test_a_block_without_nonlinearity_reaches_least_squares_on_its_kept_weights() -> None:
    rng = torch.Generator().manual_seed(0)
    inputs, aim = torch.randn(256, 8, generator=rng), torch.randn(3, 8, generator=rng)
    layer = nn.Linear(8, 3)
    kept = torch.rand(3, 2, 4, generator=rng).argsort(2).argsort(2).flatten(1) < 2
    with torch.no_grad():
        layer.weight.mul_(kept)
    data = BlockData(inputs, inputs @ aim.T + 0.5)
    settings = ReconstructSettings(epochs=100, learning_rate=0.2)
    zeros = FrozenZeros(nn.Sequential(layer), ("0",), NM(2, 4))
    fit = BlockFit(layer, data, data, zeros, settings)
    fit.run(lambda epoch: None, lambda: None)
    error = fit.after
    residual = 0.0
    for row in range(3):
        columns = np.column_stack([inputs.numpy()[:, kept[row].numpy()], np.ones(256)])
        residual += float(np.linalg.lstsq(columns, data.targets[:, row].numpy(), rcond=None)[1][0])
    assert error == pytest.approx(residual / float(data.targets.square().sum()), rel=1e-3)


@given(st.integers(2, 12), st.sampled_from([(), (3,), (2, 2)]), st.integers(0, 99))
def test_channels_are_put_into_the_sparse_networks_order(channels: int, spatial: tuple[int, ...], seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    shape = (20, 3, channels) if len(spatial) == 1 else (20, channels, *spatial)
    axis = 2 if len(spatial) == 1 else 1
    dense = torch.randn(shape, generator=rng)
    order = torch.randperm(channels, generator=rng)
    sparse = dense.index_select(axis, order) + 0.1 * torch.randn(shape, generator=rng)
    torch.testing.assert_close(match_channel_order(sparse, dense), dense.index_select(axis, order), rtol=0, atol=0)
    unlike = torch.randn(shape, generator=rng)
    torch.testing.assert_close(match_channel_order(unlike, dense), dense, rtol=0, atol=0)


def test_the_picture_of_the_blocks(tmp_path: Path, sparse: nn.Sequential, images: tuple[list[Tensor], ...]) -> None:
    far = replace(distance(outputs_of(sparse, images[1]), outputs_of(sparse, images[1])), logit_error=0.2)
    blocks = tuple(BlockResult(f"layer{i}", (), 0.1 / (i + 1), 0.0 if i else 0.05, 3, far) for i in range(3))
    for name in ("a.svg", "b.svg"):
        draw_blocks(tmp_path / name, ReconstructResult(far, blocks, 3, ()))
    content = (tmp_path / "a.svg").read_text()
    assert content == (tmp_path / "b.svg").read_text()
    assert all(f">{text}<" in content for text in ("layer0", "layer2", "before", "after", "before all"))
