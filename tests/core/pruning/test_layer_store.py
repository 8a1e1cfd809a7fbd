"""A killed pruning run resumes after its last finished layer, to the same bits."""

from __future__ import annotations

import contextlib
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks.kills import kill, whole_run
from sparsegpt_cli.resume import LAYERS, open_unfinished_run
from sparsegpt_cli.terminal import Console
from sparsegpt_core.checkpoints import save_checkpoint
from sparsegpt_core.errors import CheckFailedError, InputError
from sparsegpt_core.execution import Resources
from sparsegpt_core.patterns import Unstructured
from sparsegpt_core.pruning import LayerChoices, PruneResult, layer_pruning, prune_model
from sparsegpt_core.reasons import Reason
from sparsegpt_core.settings import PruneSettings
from tests.support.networks import tiny

EVERYTHING = PruneSettings(mask="auto", alpha=None, include=("*",))


class Residual(nn.Module):
    """Batch norms that absorb shifts, a sum that two layers feed, and a weight that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(4, 8, 3, padding=1)
        self.first = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, 1)
        self.shared = nn.Linear(8, 8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).relu()
        x = (x + self.second(self.norm(self.first(x)).relu())).mean((2, 3))
        out: torch.Tensor = self.head(self.shared(self.shared(x).relu()).relu())
        return out


def network() -> nn.Module:
    torch.manual_seed(0)
    return Residual().eval()


def images(seed: int = 1) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(8, 4, 8, 8, generator=generator) for _ in range(4)]


class Killed(Exception):
    pass


def prune(
    folder: Path | None,
    settings: PruneSettings = EVERYTHING,
    kill_after: int | None = None,
    options: dict[str, Any] | None = None,
    **runtime: Any,
) -> tuple[dict[str, torch.Tensor], PruneResult]:
    def progress(stage: str, done: int, total: int) -> None:
        if stage == "prune" and done == kill_after:
            raise Killed

    model = network()
    result = prune_model(model, images(), settings, progress, Resources(finished=folder, **runtime), **options or {})
    return model.state_dict(), result


@pytest.fixture
def solved(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the layers that were really solved."""
    names: list[str] = []
    solve = layer_pruning.solve

    def note(weight: torch.Tensor, moments: Any, settings: Any, name: str, *more: Any, **options: Any) -> Any:
        names.append(name)
        return solve(weight, moments, settings, name, *more, **options)

    monkeypatch.setattr(layer_pruning, "solve", note)
    return names


def same(
    ours: tuple[dict[str, torch.Tensor], PruneResult], theirs: tuple[dict[str, torch.Tensor], PruneResult]
) -> None:
    assert all(torch.equal(value, theirs[0][name]) for name, value in ours[0].items())

    def without_times(result: PruneResult) -> list[dict[str, Any]]:
        return [{**layer.to_json(), "seconds": 0} for layer in result.layers]

    assert without_times(ours[1]) == without_times(theirs[1])
    assert ours[1].warnings == theirs[1].warnings
    assert ours[1].int8_weights.keys() == theirs[1].int8_weights.keys()
    for name, int8_weight in ours[1].int8_weights.items():
        other = theirs[1].int8_weights[name]
        assert all(torch.equal(value, getattr(other, part)) for part, value in vars(int8_weight).items())


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        (EVERYTHING, {"int8_weights": True}),
        (PruneSettings(Unstructured(0.5)), {"choices": LayerChoices(quotas={"first": 0.7})}),
    ],
)
@pytest.mark.parametrize("traced", [True, False])
def test_a_killed_run_resumes_to_the_same_bits_after_any_layer(tmp_path, solved, settings, options, traced) -> None:
    whole = prune(None, settings, options=options, traced=traced)
    layers = list(solved)
    assert len(layers) >= 3
    for count in range(1, len(layers) + 1):
        folder = tmp_path / str(count)
        with pytest.raises(Killed):
            prune(folder, settings, kill_after=count, options=options, traced=traced)
        solved.clear()
        same(prune(folder, settings, options=options, traced=traced), whole)
        assert solved == layers[count:]


def test_layers_pruned_by_magnitude_are_kept_too(tmp_path) -> None:
    settings = PruneSettings(method="magnitude")
    with pytest.raises(Killed):
        prune(tmp_path, settings, kill_after=1)
    assert len(list(tmp_path.glob("*/*.safetensors"))) == 1
    same(prune(tmp_path, settings), prune(None, settings))


def test_other_settings_weights_or_images_use_no_kept_layer(tmp_path, solved, monkeypatch: pytest.MonkeyPatch) -> None:
    prune(tmp_path)
    layers = list(solved)
    solved.clear()
    prune(tmp_path)
    assert not solved
    prune(tmp_path, replace(EVERYTHING, damping=0.5))
    assert solved == layers
    solved.clear()
    prune(tmp_path, options={"int8_weights": True})
    assert solved == layers
    solved.clear()
    prune(tmp_path, options={"choices": LayerChoices(left_dense={"first": Reason.SENSITIVE})})
    assert set(solved) == set(layers) - {"first"}
    solved.clear()
    prune_model(network(), images(seed=2), EVERYTHING, resources=Resources(finished=tmp_path))
    assert solved == layers
    solved.clear()
    other = network()
    with torch.no_grad():
        next(other.parameters()).mul_(1.5)
    prune_model(other, images(), EVERYTHING, resources=Resources(finished=tmp_path))
    assert solved == layers
    solved.clear()
    monkeypatch.setattr("sparsegpt_core.pruning.layer_store.__version__", "9")
    prune(tmp_path)
    assert solved == layers


@pytest.mark.parametrize("damage", [b"", b"garbage" * 99, None])
def test_a_damaged_layer_is_computed_again(tmp_path, solved, damage: bytes | None) -> None:
    whole = prune(tmp_path)
    solved.clear()
    path = sorted(tmp_path.glob("*/*.safetensors"))[1]
    before = path.read_bytes()
    path.write_bytes(before[:-20] if damage is None else damage)
    same(prune(tmp_path), whole)
    assert len(solved) == 1
    again = prune(tmp_path)
    same(again, whole)
    assert len(solved) == 1  # it was written anew


def finish_a_layer(folder: Path) -> None:
    path = folder / LAYERS / "key" / "layer.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def interrupt(out: Path, identity: dict[str, Any]) -> None:
    with contextlib.suppress(Killed), open_unfinished_run(out, identity, Console()) as folder:
        finish_a_layer(folder)
        raise Killed
    assert folder.is_dir()


def test_a_run_locks_its_folder_and_removes_it_at_the_end(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    out, console = tmp_path / "out", Console()
    with open_unfinished_run(out, {"samples": 1}, console) as folder:
        finish_a_layer(folder)
        with pytest.raises(InputError, match="another run writes to"), open_unfinished_run(out, {}, console):
            pass
    assert not list(tmp_path.iterdir())
    with pytest.raises(Killed), open_unfinished_run(out, {"samples": 1}, console):
        raise Killed
    assert not list(tmp_path.iterdir())  # nothing was finished, so nothing is kept
    interrupt(out, {"samples": 1})
    with open_unfinished_run(out, {"samples": 1}, console):
        assert "resuming an interrupted run. Finished: 1 layers." in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [CheckFailedError("outputs differ"), InputError("disk full"), KeyboardInterrupt()])
def test_a_run_that_failed_late_keeps_its_layers(tmp_path, capsys, error: BaseException) -> None:
    folder = tmp_path / "out.unfinished"

    def fail() -> None:
        with open_unfinished_run(tmp_path / "out", {}, Console()):
            finish_a_layer(folder)
            raise error

    with pytest.raises(type(error)):
        fail()
    assert len(list(folder.glob(f"{LAYERS}/*/*"))) == 1
    assert f"kept in {folder}: 1 layers. The next run with the same --out resumes" in capsys.readouterr().err


def test_a_run_that_failed_before_its_first_layer_leaves_nothing(tmp_path, capsys) -> None:
    with pytest.raises(InputError), open_unfinished_run(tmp_path / "out", {}, Console()):
        raise InputError("wrong input")
    assert not list(tmp_path.iterdir())
    assert not capsys.readouterr().err


def test_a_disagreement_that_cannot_be_met_keeps_the_layers(cli, digits_checkpoint, tmp_path) -> None:
    out = tmp_path / "sparse.safetensors"
    command = (
        "prune",
        "--layers=all",
        "--weights",
        digits_checkpoint,
        "--samples",
        64,
        "--out",
        out,
        "--max-disagreement",
    )
    failed = cli(*command, 0.0001)
    assert failed.code == 1
    assert "cannot be met" in failed.err
    assert "The next run with the same --out resumes from there." in failed.err
    layers = {path.name for path in out.with_name(f"{out.name}.unfinished").glob(f"{LAYERS}/*/*.safetensors")}
    assert layers
    passed = cli(*command, 100)
    assert passed.code == 0, passed.err
    assert "the interrupted run had other settings (max_disagreement)" in passed.err
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_layers_of_an_earlier_version_are_computed_again(tmp_path, solved) -> None:
    whole = prune(tmp_path)
    for record in tmp_path.glob("*/*.json"):
        record.unlink()  # an earlier version kept tensors alone
    layers = list(solved)
    solved.clear()
    same(prune(tmp_path), whole)
    assert solved == layers


def test_changed_settings_are_reported(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    interrupt(tmp_path / "out", {"samples": 1, "seed": 0})
    interrupt(tmp_path / "out", {"samples": 2, "seed": 0})
    assert "had other settings (samples)" in capsys.readouterr().err
    (tmp_path / "out.unfinished" / "about.json").write_text("[")
    with open_unfinished_run(tmp_path / "out", {"seed": 0}, Console()):
        assert "had other settings (seed)" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_an_input_error(tmp_path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(InputError, match="cannot write to"),
        open_unfinished_run(tmp_path / "file" / "out", {}, Console()),
    ):
        pass


def test_prune_export_killed_at_any_time_gives_the_same_files(tmp_path) -> None:
    weights = tmp_path / "tiny.safetensors"
    save_checkpoint(weights, tiny().state_dict(), {"num_classes": 10, "mean": [0.3], "std": [0.4]})
    command = ["prune-export", "--layers=all", "--model", "tests.support.networks:tiny", "--weights", str(weights)]
    command += ["--include", "*", "--samples", "32", "--eval-samples", "50", "--no-baseline"]
    count = kill(command, tmp_path / "run", whole_run, 1, random.Random(0))  # after about 0.8 of the time
    assert count.kills == 1
    assert count.ends >= 1  # a start that was faster than the undisturbed run ends before it is killed
