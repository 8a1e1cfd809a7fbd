"""Training on the digits: it learns, repeats itself, and keeps the best epoch."""

from __future__ import annotations

import copy
import importlib
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from calibration.data import Data, TrainingSplit, draw_indices, open_data
from calibration.data.image_sources import ArrayImages, Samples
from calibration.evaluation import Evaluation, evaluate
from calibration.sampling import augmentation_for, crop_flip
from calibration.training import Epoch, TrainResult, TrainSettings, Unfinished, train
from sparsegpt_cli.figures import draw_epochs
from sparsegpt_core.errors import DataError, InputError, ModelError, NumericsError
from sparsegpt_core.files import KeyedStore
from tests.support.networks import digits_net


@pytest.fixture(scope="module")
def digits() -> Data:
    return open_data("digits")


def train_small(data: Data, **settings: Any) -> tuple[nn.Module, TrainResult]:
    model = digits_net()
    return model, train(model, data, TrainSettings(**{"epochs": 2, **settings}))


@pytest.mark.parametrize("schedule", ["one-cycle", "cosine"])
def test_a_small_net_learns_the_digits(digits: Data, schedule: str) -> None:
    model, result = train_small(digits, epochs=4, schedule=schedule)
    assert digits.evaluation is not None
    assert evaluate(model, digits.evaluation).top1 > 85
    assert [epoch.epoch for epoch in result.history] == [1, 2, 3, 4]
    assert result.history[-1].loss < result.history[0].loss
    assert result.history[-1].learning_rate < 1e-4


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_every_precision_learns(digits: Data, precision: str, dtype: torch.dtype) -> None:
    model, seen = digits_net(), set()
    model.register_forward_hook(lambda module, _, output: seen.add(output.dtype) if module.training else None)
    result = train(model, digits, TrainSettings(epochs=1, precision=precision))
    assert seen == {dtype}
    assert result.history[0].validation_top1 > 50
    assert result.best_state["8.weight"].dtype == torch.float32


def test_the_same_seed_gives_the_same_weights(digits: Data) -> None:
    torch.manual_seed(99)
    expected = torch.rand(3)
    torch.manual_seed(99)
    state = torch.get_rng_state()
    results = []
    for seed in (1, 1, 2):
        model = digits_net()
        torch.set_rng_state(state)
        results.append(train(model, digits, TrainSettings(epochs=1, seed=seed)).best_state)
        torch.testing.assert_close(torch.rand(3), expected)  # the caller's random state is untouched
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=0)
    assert not torch.equal(results[0]["8.weight"], results[2]["8.weight"])


@pytest.fixture
def interrupts() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt: a shell's background jobs start with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class _Kill(BaseException):
    """Ends a training as a kill does: nothing runs after it."""


@pytest.mark.parametrize(("stop", "ema"), [(1, 0.0), (8, 0.9), (9, 0.0), (20, 0.9)])
@pytest.mark.parametrize("interrupt", [False, True])
@pytest.mark.usefixtures("interrupts")
def test_a_stopped_training_continues_to_the_same_weights(
    digits: Data, tmp_path: Path, stop: int, ema: float, interrupt: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight steps make an epoch. A kill loses the steps since the last write, an interrupt none."""
    monkeypatch.setattr("calibration.training.unfinished_training._MIN_PAUSE_PER_WRITE", 0)
    seconds = 3600 if interrupt else 0
    settings = TrainSettings(epochs=3, precision="bf16", augment="crop", ema=ema)
    path = tmp_path / "net.unfinished"

    def progress(_: str, done: int, total: int) -> None:
        assert total == 24
        if done == stop and interrupt:
            signal.raise_signal(signal.SIGINT)
        elif done == stop + 1:
            raise _Kill

    whole = train(digits_net(), digits, settings)
    with pytest.raises(KeyboardInterrupt if interrupt else _Kill):
        train(digits_net(), digits, settings, progress, Unfinished(path, {"a": 1}, seconds))
    torch.rand(7)  # the caller's own draws change nothing
    steps: list[int] = []
    rest = train(
        digits_net(),
        digits,
        settings,
        lambda _, done, total: steps.append(done),
        Unfinished(path, {"a": 1}),
    )
    assert steps[0] == stop
    assert (rest.best_epoch, len(rest.history)) == (whole.best_epoch, 3)
    assert [replace(epoch, seconds=0) for epoch in rest.history] == [
        replace(epoch, seconds=0) for epoch in whole.history
    ]
    assert all(torch.equal(rest.best_state[name], value) for name, value in whole.best_state.items())
    assert not path.exists()


@pytest.mark.parametrize("place", ["step", "validation"])
@pytest.mark.usefixtures("interrupts")
def test_an_interrupt_at_any_place_saves_a_whole_state(
    digits: Data, tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, path, calls = TrainSettings(epochs=2), tmp_path / "net.unfinished", []
    whole = train(digits_net(), digits, settings)
    module, name = ("loop", "logits_and_labels") if place == "step" else ("trainer", "score")
    function = getattr(importlib.import_module(f"calibration.training.{module}"), name)

    def interrupted(*arguments: Any) -> Any:
        calls.append(place)
        if len(calls) == (5 if place == "step" else 1):
            signal.raise_signal(signal.SIGINT)
        return function(*arguments)

    monkeypatch.setattr(f"calibration.training.{module}.{name}", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(digits_net(), digits, settings, unfinished=Unfinished(path, {}))
    assert Unfinished(path, {}).load()[0]["done"] == (5 if place == "step" else 8)
    rest = train(digits_net(), digits, settings, unfinished=Unfinished(path, {}))
    assert all(torch.equal(rest.best_state[name], value) for name, value in whole.best_state.items())


def test_a_saved_state_is_used_only_for_the_same_training(tmp_path: Path) -> None:
    path = tmp_path / "net.unfinished"
    Unfinished(path, {"epochs": 3, "mean": (0.5,)}, seconds=0).keep(lambda: {"done": 7})
    assert Unfinished(path, {"epochs": 3, "mean": [0.5]}).load() == ({"done": 7}, ())
    assert Unfinished(path, {"epochs": 4, "mean": [0.5], "new": None}).load() == (None, ("epochs",))
    (state,) = path.glob("*.pt")
    state.write_bytes(state.read_bytes()[:-100])
    with pytest.raises(DataError, match="is damaged"):
        Unfinished(path, {}).load()
    Unfinished(path, {}).remove()
    assert Unfinished(path, {}).load() == (None, ())


def test_a_kill_between_two_writes_leaves_the_earlier_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("calibration.training.unfinished_training._MIN_PAUSE_PER_WRITE", 0)
    unfinished = Unfinished(tmp_path / "net.unfinished", {}, seconds=0)
    unfinished.keep(lambda: {"done": 1})
    unfinished.keep(lambda: {"done": 2})
    monkeypatch.setattr(KeyedStore, "write", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        unfinished.keep(lambda: {"done": 3})
    assert Unfinished(tmp_path / "net.unfinished", {}).load() == ({"done": 2}, ())


def test_a_state_of_an_earlier_version_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "net.unfinished"
    torch.save({"key": "{}", "state": {"done": 7}}, path)
    unfinished = Unfinished(path, {}, seconds=0)
    assert unfinished.load() == (None, ())
    unfinished.keep(lambda: {"done": 1})
    assert Unfinished(path, {}).load() == ({"done": 1}, ())


def test_it_is_written_now_and_then(tmp_path: Path) -> None:
    unfinished = Unfinished(tmp_path / "net.unfinished", {}, seconds=3600)
    unfinished.keep(lambda: pytest.fail("too early"))
    assert unfinished.load() == (None, ())


def test_the_model_is_left_with_its_best_epoch(digits: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted = [(50, 1.0), (80, 0.9), (80, 0.7), (80, 0.8), (70, 0.1)]
    states = []

    def score(model: nn.Module, *_: object) -> Evaluation:
        states.append(copy.deepcopy(model.state_dict()))
        top1, loss = scripted[len(states) - 1]
        return Evaluation(top1, None, loss, 120)

    monkeypatch.setattr("calibration.training.trainer.score", score)
    model, result = train_small(digits, epochs=5)
    assert result.best_epoch == 3
    assert [epoch.validation_top1 for epoch in result.history] == [50, 80, 80, 80, 70]
    torch.testing.assert_close(result.best_state, dict(states[2]), rtol=0, atol=0)
    torch.testing.assert_close(dict(model.state_dict()), result.best_state, rtol=0, atol=0)
    assert not torch.equal(states[2]["8.weight"], states[4]["8.weight"])
    assert all(tensor.is_contiguous() for tensor in (*result.best_state.values(), *model.state_dict().values()))


@pytest.mark.parametrize(("seed", "ema"), [(0, 0.0), (1, 0.0), (1, 0.9)])
def test_validation_is_a_stratified_share_of_the_training_split(digits: Data, seed: int, ema: float) -> None:
    """The share does not depend on the seed, and the averaged weights are validated if there are any."""
    model, result = train_small(digits, epochs=1, seed=seed, ema=ema)
    held_out = draw_indices(1198, 120, 0, digits.training.labels)
    ((images, labels),) = digits.training.batches(120, held_out)
    with torch.no_grad():
        correct = model.eval()(torch.from_numpy(images)).argmax(1) == torch.as_tensor(labels)
    assert result.history[0].validation_top1 == pytest.approx(100 * correct.double().mean().item())


def test_the_average_follows_the_weights_and_the_statistics(digits: Data) -> None:
    model, averages = digits_net(), dict[str, Tensor]()

    def follow(_: str, done: int, total: int) -> None:
        decay = min(0.7, done / (done + 9))  # one step fewer than are done
        for name, value in model.state_dict().items():
            if done == 1:
                averages[name] = value.double()
            elif done:
                averages[name] = decay * averages[name] + (1 - decay) * value.double()

    result = train(model, digits, TrainSettings(epochs=1, ema=0.7, precision="fp32"), follow)
    del averages["1.num_batches_tracked"], averages["4.num_batches_tracked"]
    for name, average in averages.items():
        torch.testing.assert_close(result.best_state[name].double(), average, rtol=1e-4, atol=1e-6)
    plain = train_small(digits, epochs=1, precision="fp32")[1]
    assert not torch.allclose(plain.best_state["1.running_mean"], result.best_state["1.running_mean"], rtol=0.01)


def test_the_validation_share_is_never_learned_from(digits: Data) -> None:
    seen: list[tuple[bool, Tensor]] = []

    class Spy(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            seen.append((self.training, images.detach()[:, 0, 0, 0]))
            return images.flatten(1)

    pixels = np.broadcast_to(np.arange(100, dtype=np.float32).reshape(-1, 1, 1, 1), (100, 1, 4, 4))
    split = TrainingSplit(Samples(ArrayImages(pixels), np.arange(100) % 10))
    model = nn.Sequential(Spy(), nn.Linear(16, 10))
    data = replace(digits, training=split, evaluation=None)
    train(model, data, TrainSettings(epochs=3, batch_size=8, augment="none", precision="fp32", validation=0.2))
    learned = torch.cat([images for training, images in seen if training])
    validated = torch.cat([images for training, images in seen if not training])
    assert set(learned.tolist()) | set(validated.tolist()) == set(range(100))
    assert not set(learned.tolist()) & set(validated.tolist())
    assert len(set(validated.tolist())) == 20


def test_progress_counts_steps(digits: Data) -> None:
    steps: list[tuple[str, int, int]] = []
    train(digits_net(), digits, TrainSettings(epochs=2, batch_size=500), lambda *step: steps.append(step))
    assert steps == [("train", done, 4) for done in range(5)]


def test_the_history_is_reported_after_every_epoch(digits: Data) -> None:
    reported: list[list[int]] = []
    settings = TrainSettings(epochs=2, batch_size=500)
    train(digits_net(), digits, settings, after_epoch=lambda history: reported.append([each.epoch for each in history]))
    assert reported == [[1], [1, 2]]


def test_the_same_history_makes_the_same_picture(tmp_path: Path) -> None:
    history = [Epoch(number, None if number == 0 else 1 / number, 0.1, 90.0 + number, 0.3, 1.0) for number in range(4)]
    for name in ("a.svg", "b.svg"):
        draw_epochs(tmp_path / name, history, dense_top1=94.25)
    content = (tmp_path / "a.svg").read_text()
    assert content == (tmp_path / "b.svg").read_text()
    assert "<dc:date>" not in content
    for text in ("epoch", "training loss", "validation top-1, %", "best: 93.00 %, epoch 3", "dense: 94.25 %"):
        assert f">{text}<" in content
    draw_epochs(tmp_path / "c.svg", history[1:2])
    assert "dense" not in (tmp_path / "c.svg").read_text()


def test_training_leaves_its_curve_beside_the_checkpoint(cli: Any, tmp_path: Path) -> None:
    arguments = ["--model", "simple_cnn", "--data", "digits", "--epochs", 2, "--ema", 0.9]
    arguments += ["--out", tmp_path / "net.safetensors"]
    content = cli("train", *arguments, "--json").json
    assert content["curve"] == str(tmp_path / "net.curve.svg")
    assert "epoch 2<" in (tmp_path / "net.curve.svg").read_text()
    assert content["seconds"] > sum(epoch["seconds"] for epoch in content["history"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.curve.svg", "net.safetensors"]


def test_fewer_samples_than_a_batch_still_train(digits: Data) -> None:
    assert len(train_small(digits, batch_size=5000, epochs=1)[1].history) == 1


def test_a_loss_that_is_not_finite_is_an_error(digits: Data) -> None:
    with pytest.raises(NumericsError, match="training loss is") as error:
        train_small(digits, learning_rate=1e30)
    assert "`learning_rate`" in error.value.hint


def test_data_that_cannot_be_trained_on_is_refused(digits: Data) -> None:
    images = ArrayImages(np.zeros((1, 1, 8, 8), dtype=np.float32))
    unlabelled = replace(digits, training=TrainingSplit(Samples(images)))
    with pytest.raises(DataError, match="no labels to train on"):
        train_small(unlabelled)
    single = replace(digits, training=TrainingSplit(Samples(images, np.zeros(1, dtype=np.int64))))
    with pytest.raises(DataError, match="leave none to learn from"):
        train_small(single)
    with pytest.raises(ModelError, match="fails on images"):
        train(nn.Conv2d(3, 4, 3), digits, TrainSettings())
    with pytest.raises(DataError, match="label 9, but the model has 4 outputs"):
        train(nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), digits, TrainSettings())


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"batch_size": 0},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"momentum": 1.0},
        {"weight_decay": -1.0},
        {"optimizer": "lion"},
        {"ema": 1.0},
        {"schedule": "step"},
        {"precision": "int8"},
        {"augment": "flip"},
        {"label_smoothing": 1.0},
        {"validation": 0.0},
        {"validation": 1.0},
        {"seed": -1},
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(InputError, match=f"`{name}`"):
        TrainSettings(**wrong)


def test_settings_do_not_touch_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "empty", lambda *_, **__: pytest.fail("allocated"))
    assert TrainSettings(device="cuda:99").device == "cuda:99"


def test_training_refuses_a_device_that_does_not_exist(digits: Data) -> None:
    with pytest.raises(InputError, match="'toaster' cannot be used"):
        train_small(digits, device="toaster")


@given(st.integers(1, 6), st.integers(1, 3), st.integers(2, 20), st.integers(2, 20), st.booleans(), st.integers(0, 99))
def test_crops_and_flips_are_windows_of_the_padded_image(
    count: int, channels: int, height: int, width: int, flip: bool, seed: int
) -> None:
    images = torch.rand(count, channels, height, width) + 1
    background = [-float(channel + 1) for channel in range(channels)]
    changed = crop_flip(images, background, flip, torch.Generator().manual_seed(seed))
    assert changed.shape == images.shape
    top, left = max(1, height // 8), max(1, width // 8)
    for before, after in zip(images, changed, strict=True):
        padded = torch.stack(
            [nn.functional.pad(before[c], (left, left, top, top), value=background[c]) for c in range(channels)]
        )
        windows = [padded[:, y : y + height, x : x + width] for y in range(2 * top + 1) for x in range(2 * left + 1)]
        windows += [window.flip(-1) for window in windows] if flip else []
        assert any(torch.equal(after, window) for window in windows)


def test_digits_are_never_mirrored() -> None:
    specs = ("digits", "mnist", "fashion-mnist", "cifar10", "imagefolder:x", "npz:x")
    assert [augmentation_for(spec) for spec in specs] == ["crop", "crop", "crop-flip", "crop-flip", "crop-flip", "none"]
