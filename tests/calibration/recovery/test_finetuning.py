"""Fine-tuning on the digits: zeros stay zeros at every step, and it never gets worse."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from torch import Tensor, nn

from calibration.data import Data, open_data
from calibration.evaluation import Evaluation
from calibration.recovery import finetune, finetune_settings
from calibration.training import (
    Distillation,
    FrozenZeros,
    TrainResult,
    TrainSettings,
    Unfinished,
    parse_pruning_metadata,
    train,
)
from sparsegpt_core.errors import InputError, ModelError
from sparsegpt_core.patterns import NM, Pattern, Unstructured
from tests.support.networks import digits_net

PRUNED = ("3", "8")
PATTERN = NM(1, 4)


@pytest.fixture(scope="module")
def digits() -> Data:
    return open_data("digits")


def prune(model: nn.Sequential) -> nn.Sequential:
    """Keep the largest of every four input channels."""
    for name in PRUNED:
        weight = model.get_parameter(f"{name}.weight").data
        groups = weight.unflatten(1, (-1, 4))
        groups *= groups.abs() == groups.abs().amax(2, keepdim=True)
    return model


@pytest.fixture(scope="module")
def trained(digits: Data) -> nn.Sequential:
    model = digits_net()
    train(model, digits, TrainSettings(epochs=4, precision="fp32"))
    return model


@pytest.fixture
def sparse(trained: nn.Sequential) -> nn.Sequential:
    return prune(copy.deepcopy(trained))


def zeros_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: model.get_parameter(f"{name}.weight").detach() == 0 for name in PRUNED}


def bits_at(zeros: dict[str, Tensor], state: dict[str, Tensor]) -> int:
    """The bits that are set where zeros must be: a zero with a minus has one, too."""
    return sum(int((state[f"{name}.weight"][mask].view(torch.int32) != 0).sum()) for name, mask in zeros.items())


def tune(model: nn.Module, data: Data, *more: Any, **settings: Any) -> TrainResult:
    return finetune(model, data, finetune_settings(**settings), PRUNED, PATTERN, *more)


SGD = {"optimizer": "sgd", "weight_decay": 0.1, "learning_rate": 0.1, "schedule": "one-cycle", "precision": "fp32"}
ADAMW = {"optimizer": "adamw", "weight_decay": 0.5, "precision": "bf16"}
AVERAGED = {"optimizer": "sgd", "ema": 0.9, "precision": "fp16"}
ALL = {"optimizer": "adamw", "ema": 0.9, "epochs": 2, "precision": "fp16", "learning_rate": 0.01}


@pytest.mark.parametrize(
    ("settings", "distilled"), [(SGD, False), (SGD, True), (ADAMW, False), (AVERAGED, False), (ALL, True)]
)
def test_zeros_stay_zero_bit_for_bit_at_every_step(
    digits: Data, trained: nn.Sequential, sparse: nn.Sequential, settings: dict[str, Any], distilled: bool
) -> None:
    sparse[3].weight.data[0, 1] *= -1  # makes zeros with a minus
    zeros, before = zeros_of(sparse), copy.deepcopy(sparse.state_dict())
    assert bits_at(zeros, before) > 0
    steps = []

    def progress(_: str, done: int, total: int) -> None:
        state = sparse.state_dict()
        assert bits_at(zeros, state) == 0
        assert all(bool((state[f"{name}.weight"] != 0)[~mask].all()) for name, mask in zeros.items())
        steps.append(done)

    result = tune(sparse, digits, Distillation(trained) if distilled else None, progress, **settings)
    assert steps == list(range(8 * settings.get("epochs", 1) + 1))
    assert bits_at(zeros, result.best_state) == bits_at(zeros, dict(sparse.state_dict())) == 0
    assert not torch.equal(before["8.weight"], sparse.state_dict()["8.weight"])


def test_plain_training_changes_the_zeros(digits: Data, sparse: nn.Sequential) -> None:
    zeros = zeros_of(sparse)
    train(sparse, digits, TrainSettings(epochs=1, learning_rate=0.01))
    assert bits_at(zeros, dict(sparse.state_dict())) > 100


def test_it_starts_with_epoch_0_and_recovers(digits: Data, sparse: nn.Sequential) -> None:
    result = tune(sparse, digits, epochs=3)
    assert [epoch.epoch for epoch in result.history] == [0, 1, 2, 3]
    first = result.history[0]
    assert (first.loss, first.learning_rate, first.seconds) == (None, 0, 0)
    assert result.best.validation_top1 > first.validation_top1 + 5


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_it_never_gets_worse(digits: Data, sparse: nn.Sequential, monkeypatch: pytest.MonkeyPatch, ema: float) -> None:
    scores = iter([(90, 0.5), (80, 0.4), (90, 0.5)])

    def score(*_: object) -> Evaluation:
        top1, loss = next(scores)
        return Evaluation(top1, None, loss, 120)

    monkeypatch.setattr("calibration.training.trainer.score", score)
    before = copy.deepcopy(sparse.state_dict())
    result = tune(sparse, digits, epochs=2, ema=ema)
    assert result.best_epoch == 0
    torch.testing.assert_close(dict(sparse.state_dict()), dict(before), rtol=0, atol=0)


@pytest.mark.parametrize("stop", [3, 8, 11])
def test_an_interrupted_fine_tuning_continues_to_the_same_weights(
    digits: Data, trained: nn.Sequential, sparse: nn.Sequential, tmp_path: Path, stop: int, monkeypatch: Any
) -> None:
    monkeypatch.setattr("calibration.training.unfinished_training._MIN_PAUSE_PER_WRITE", 0)
    other, third, path = copy.deepcopy(sparse), copy.deepcopy(sparse), tmp_path / "net.unfinished"
    settings = {"epochs": 2, "optimizer": "adamw", "ema": 0.9, "augment": "crop"}

    def interrupt(_: str, done: int, total: int) -> None:
        if done == stop:
            raise KeyboardInterrupt

    whole = tune(sparse, digits, Distillation(trained), **settings)
    with pytest.raises(KeyboardInterrupt):
        tune(other, digits, Distillation(trained), interrupt, Unfinished(path, {}, seconds=0), **settings)
    seen: list[tuple[int, int]] = []
    zeros = zeros_of(third)

    def progress(_: str, done: int, total: int) -> None:
        seen.append((done, bits_at(zeros, dict(third.state_dict()))))

    rest = tune(third, digits, Distillation(trained), progress, Unfinished(path, {}), **settings)
    assert seen == [(done, 0) for done in range(stop, 17)]
    assert [replace(epoch, seconds=0) for epoch in rest.history] == [
        replace(epoch, seconds=0) for epoch in whole.history
    ]
    torch.testing.assert_close(rest.best_state, whole.best_state, rtol=0, atol=0)


def test_the_distilled_loss_is_that_of_hinton() -> None:
    rng = np.random.default_rng(0)
    student, teacher = rng.normal(size=(2, 5, 7)) * 3
    temperature, weight, plain = 3.0, 0.7, 0.25
    p, q = log_softmax(teacher / temperature, axis=1), log_softmax(student / temperature, axis=1)
    divergence = (np.exp(p) * (p - q)).sum(axis=1).mean()
    expected = (1 - weight) * plain + weight * temperature**2 * divergence
    distillation = Distillation(nn.Identity(), weight, temperature)
    loss = distillation.loss(torch.tensor(plain), torch.from_numpy(student), torch.from_numpy(teacher))
    assert float(loss) == pytest.approx(expected)


def test_the_teacher_only_teaches(digits: Data, trained: nn.Sequential, sparse: nn.Sequential) -> None:
    teacher, modes = copy.deepcopy(trained).train(), set[bool]()
    teacher[7].register_forward_hook(lambda module, *_: modes.add(module.training))
    result = tune(sparse, digits, Distillation(teacher, weight=1.0))
    assert modes == {False}
    assert teacher[7].training
    torch.testing.assert_close(dict(teacher.state_dict()), dict(trained.state_dict()), rtol=0, atol=0)
    assert result.teacher is not None
    assert result.teacher.samples == 120
    assert result.teacher.top1 > 85


@pytest.mark.parametrize(("mode", "modes"), [("train", {True, False}), ("eval", {False})])
def test_in_eval_mode_statistics_stay_and_the_rest_learns(
    digits: Data, trained: nn.Sequential, sparse: nn.Sequential, mode: str, modes: set[bool]
) -> None:
    seen, before = set[bool](), copy.deepcopy(sparse)
    sparse[7].register_forward_hook(lambda module, *_: seen.add(module.training))
    tune(sparse, digits, Distillation(trained), mode=mode)
    assert seen == modes
    assert torch.equal(before[4].running_mean, sparse[4].running_mean) == (mode == "eval")
    for name in ("3.weight", "4.weight", "8.bias"):
        assert not torch.equal(before.get_parameter(name), sparse.get_parameter(name))


def test_a_teacher_of_other_classes_is_refused(digits: Data, sparse: nn.Sequential) -> None:
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(64, 12))
    with pytest.raises(ModelError, match="dense network has 12 classes, the pruned one 10"):
        tune(sparse, digits, Distillation(teacher))


@pytest.mark.parametrize("wrong", [{"weight": -0.1}, {"weight": 1.1}, {"temperature": 0.0}])
def test_a_distillation_out_of_range_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError):
        Distillation(nn.Identity(), **wrong)


def test_defaults_go_by_the_optimiser() -> None:
    assert finetune_settings().epochs == 1
    assert finetune_settings().learning_rate > 10 * finetune_settings(optimizer="adamw").learning_rate
    assert finetune_settings(mode="eval").learning_rate < finetune_settings().learning_rate
    assert finetune_settings(learning_rate=0.5).learning_rate == 0.5
    for wrong in ({"optimizer": "lion"}, {"mode": "test"}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            finetune_settings(**wrong)


@pytest.mark.parametrize(
    ("layers", "pattern", "message"),
    [
        (("3", "9"), PATTERN, "has no layer 9"),
        (("3", "2"), PATTERN, "has no layer 2"),
        (("0",), PATTERN, r"0 is not pruned to 1:4: a weight of shape \(16, 1, 3, 3\) cannot be 1:4"),
        (("1",), PATTERN, r"1 is not pruned to 1:4: a weight of shape \(16,\) cannot be 1:4"),
        (("3", "8"), NM(1, 8), "3 is not pruned to 1:8: .* of 288 groups have too many"),
        (("3", "8"), Unstructured(0.8), "not pruned to 0.8: 75.0 % of the weights are zero"),
    ],
)
def test_weights_that_break_the_pattern_are_refused(
    sparse: nn.Sequential, layers: tuple[str, ...], pattern: Pattern, message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        FrozenZeros(sparse, layers, pattern)


def test_weights_that_follow_the_pattern_are_accepted(sparse: nn.Sequential) -> None:
    for pattern in (PATTERN, NM(2, 4), Unstructured(0.75), Unstructured(0.755)):
        FrozenZeros(sparse, PRUNED, pattern)


def test_a_network_that_is_one_layer_has_zeros_too() -> None:
    layer = nn.Linear(4, 3)
    layer.weight.data[:, 1:] = -0.0
    FrozenZeros(layer, ("",), NM(1, 4))
    assert not layer.weight[:, 1:].signbit().any()


@pytest.mark.parametrize(
    "metadata",
    [{}, {"pattern": "2:4"}, {"pruned": ["a"]}, {"pruned": [], "pattern": "2:4"}, {"pruned": "a", "pattern": 2}],
)
def test_metadata_without_pruned_layers_is_refused(metadata: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="does not list pruned layers"):
        parse_pruning_metadata(metadata)


def test_metadata_gives_the_pruned_layers_and_the_pattern() -> None:
    assert parse_pruning_metadata({"pruned": ["a", "b"], "pattern": "2:4"}) == (("a", "b"), NM(2, 4))
    with pytest.raises(InputError, match="5:4"):
        parse_pruning_metadata({"pruned": ["a"], "pattern": "5:4"})
