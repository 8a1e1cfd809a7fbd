"""``sweep`` on the digits: its numbers are right, a cell is written at once and computed once, errors are one line."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from pyarrow import csv, parquet

from calibration.data import open_data
from calibration.evaluation import distance, evaluate, outputs_of
from calibration.sampling import calibration_batches
from calibration.training import TrainSettings, train
from deploy.measure.accuracy import paired_difference
from sparsegpt_cli.jobs.datasets import DataSource
from sparsegpt_cli.resume import locked
from sparsegpt_cli.sweep import Evaluator, runner
from sparsegpt_cli.sweep.cell import Task
from sparsegpt_cli.sweep.checkpoints import open_checkpoint
from sparsegpt_cli.sweep.grid import Cell
from sparsegpt_cli.sweep.tables import read_results
from sparsegpt_cli.terminal import Console
from sparsegpt_core.checkpoints import load_checkpoint, load_into, save_checkpoint
from sparsegpt_core.patterns import NM
from sparsegpt_core.pruning import prune_model
from sparsegpt_core.quality import preset
from sparsegpt_core.user_code import import_object
from tests.support.networks import tiny
from tests.support.paths import ROOT

MODEL = "tests.support.networks:tiny"
CODE = ("--model", MODEL)
GRID = (*CODE, "--method", "magnitude", "--method", "cnn-sparsegpt", "--method", "sparsegpt")
GRID += ("--pattern", "2:4", "--samples", 16, "--samples", 32, "--seeds", 0, "--seeds", 3, "--jobs", 2)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> tuple[Path, Path]:
    """A trained and an untrained network."""
    folder, data = tmp_path_factory.mktemp("checkpoints"), open_data("digits")
    paths = folder / "trained.safetensors", folder / "untrained.safetensors"
    metadata = {"model": MODEL, "data": "digits", "num_classes": 10, "mean": data.mean, "std": data.std}
    torch.manual_seed(0)
    model = tiny()
    save_checkpoint(paths[1], model.state_dict(), metadata)
    train(model, data, TrainSettings(epochs=4, batch_size=64, augment="none", precision="fp32"))
    save_checkpoint(paths[0], model.state_dict(), metadata)
    return paths


@pytest.fixture(scope="module")
def finished(checkpoints, tmp_path_factory) -> Path:
    """The folder of a finished sweep over both."""
    from sparsegpt_cli.app import main

    out = tmp_path_factory.mktemp("sweep") / "out"
    weights = [part for path in checkpoints for part in ("--weights", str(path))]
    assert main(["sweep", *weights, *map(str, GRID), "--out", str(out), "--quiet"]) == 0
    return out


@pytest.fixture
def swept(finished, checkpoints, tmp_path, cli):
    """A copy of that folder, and a function that runs the sweep in it again."""
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    weights = [part for path in checkpoints for part in ("--weights", path)]
    return out, lambda *more: cli("sweep", *weights, *GRID, "--out", out, "--json", *more)


def each_here(function, items, jobs):
    """In place of ``each_in_processes``, for tests of other things."""
    return ((item, function(item)) for item in items)


@pytest.fixture
def inside(monkeypatch):
    """Compute cells in this process and draw no pictures, for tests of other things."""
    threads = torch.get_num_threads()
    monkeypatch.setattr(runner, "each_in_processes", each_here)
    monkeypatch.setattr(runner, "draw", lambda *_: [])
    yield
    torch.set_num_threads(threads)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def cell_of(folder: Path, start: str) -> Path:
    (path,) = (folder / "cells").glob(f"{start}_*.json")
    return path


def test_a_finished_sweep_computes_nothing_and_writes_the_same(swept):
    out, again = swept
    before = files(out)
    shutil.rmtree(out / "pictures")
    (out / "results.csv").unlink()
    done = again()
    assert done.code == 0
    assert done.json["computed"] == 0
    assert done.json["failed"] == []
    assert len(done.json["cells"]) == len(before.keys() & {f"cells/{p.name}" for p in (out / "cells").iterdir()}) == 18
    assert files(out) == before
    assert {str(Path(path).relative_to(out)) for path in done.json["files"]} <= before.keys()
    assert "18 cells, 18 of them finished" in done.err


def test_tables(finished):
    results = parquet.read_table(finished / "results.parquet").to_pylist()
    layers = parquet.read_table(finished / "layers.parquet").to_pylist()
    assert csv.read_csv(finished / "results.csv").to_pylist() == results
    assert csv.read_csv(finished / "layers.csv").num_rows == len(layers)
    assert [row["method"] for row in results].count("magnitude") == 2
    for row in results:
        assert row["difference"] == pytest.approx(row["top1"] - row["dense_top1"])
        assert row["difference_low"] <= row["difference"] <= row["difference_high"]
        own = [
            layer
            for layer in layers
            if all(layer[name] == row[name] for name in ("checkpoint", "method", "samples", "seed"))
        ]
        sizes = [np.prod([int(size) for size in layer["shape"].split("x")]) for layer in own]
        zeros = np.dot([layer["sparsity"] for layer in own], sizes) / sum(sizes)
        assert row["sparsity"] == pytest.approx(zeros)
        assert row["evaluated"] == 599
        assert (row["layers"], row["pruned_layers"]) == (len(own), sum(layer["status"] == "pruned" for layer in own))
    stem = next(layer for layer in layers if layer["layer"] == "conv1" and layer["method"] == "sparsegpt")
    assert (stem["number"], stem["kind"], stem["status"], stem["reason"]) == (
        1,
        "Conv2d",
        "dense",
        "CHANNELS_NOT_MULTIPLE",
    )


def test_pictures(finished):
    assert sorted(path.name for path in (finished / "pictures").iterdir()) == [
        *(f"{kind}-{name}.svg" for kind in ("layers", "samples", "sensitivity") for name in ("trained", "untrained")),
        "sparsity.svg",
        "training-tests.support.networks-tiny.svg",
    ]


def test_a_cell_equals_the_result_of_the_library(finished, checkpoints):
    """Compute by hand: dense and sparse accuracy, their paired difference, and all distances."""
    data = open_data("digits")
    models = [tiny().eval() for _ in range(2)]
    for model in models:
        load_into(model, load_checkpoint(checkpoints[0]).state)
    settings = preset("fast", pattern=NM(2, 4), damping=0.01, bias=False).settings
    layers = prune_model(models[1], calibration_batches(data.training, 32, 32, seed=3), settings).layers
    dense, sparse = (evaluate(model, data.evaluation) for model in models)
    images, labels = next(data.evaluation.batches(1000))
    outputs = [outputs_of(model, [torch.from_numpy(images)]) for model in models]
    difference = paired_difference(*((output.argmax(1).numpy() == labels) for output in outputs))

    record = json.loads(cell_of(finished, "trained_sparsegpt_2-4_32_seed3").read_text())
    result, identity = record["result"], record["identity"]
    for arm, expected in (("dense", dense), ("sparse", sparse)):
        assert result[arm]["top1"] == pytest.approx(expected.top1)
        assert result[arm]["top5"] == pytest.approx(expected.top5)
        assert result[arm]["loss"] == pytest.approx(expected.loss, rel=1e-4)
    assert result["difference"] == pytest.approx(vars(difference))
    for name, value in distance(*outputs).to_json().items():
        assert result[name] == pytest.approx(value, rel=1e-3)
    assert [layer["relative_error"] for layer in result["layers"]] == [
        None if layer.relative_error is None else pytest.approx(layer.relative_error, rel=1e-3) for layer in layers
    ]
    assert identity["checkpoint_sha256"] == load_checkpoint(checkpoints[0]).sha256
    assert identity["settings"]["damping"] == 0.01
    assert identity["seed"] == 3


def test_sparsegpt_loses_less_than_magnitude(finished):
    rows = parquet.read_table(finished / "results.parquet").to_pylist()
    kl = {row["method"]: row["kl"] for row in rows if row["checkpoint"] == "trained" and row["samples"] in (None, 32)}
    assert kl["sparsegpt"] < kl["magnitude"]
    assert kl["sparsegpt"] < kl["cnn-sparsegpt"]


def test_a_damaged_cell_is_reported_and_computed_again(swept, inside):
    out, again = swept
    path = cell_of(out, "trained_sparsegpt_2-4_16_seed0")
    whole = json.loads(path.read_text())
    path.write_bytes(path.read_bytes()[:-100])
    (reference,) = (out / "dense").glob("trained_*")
    reference.write_bytes(reference.read_bytes()[:-1] + b"\1")
    done = again()
    assert done.json["computed"] == 1
    assert f"{path} is damaged" in done.err
    assert f"{reference} is damaged" in done.err
    repaired = json.loads(path.read_text())
    assert repaired["result"] | {"seconds": 0} == whole["result"] | {"seconds": 0}


def test_another_checkpoint_of_the_same_name_is_another_cell(swept, inside, checkpoints, cli, tmp_path):
    out, _ = swept
    kept = files(out / "cells")
    another = tmp_path / "trained.safetensors"
    checkpoint = load_checkpoint(checkpoints[0])
    state = {name: value * 1.01 if name == "fc2.weight" else value for name, value in checkpoint.state.items()}
    save_checkpoint(another, state, checkpoint.metadata)
    done = cli(
        *("sweep", *CODE, "--weights", another, "--method", "magnitude", "--pattern", "2:4", "--out", out, "--json"),
        *("--eval-samples", 100),
    )
    assert done.json["computed"] == 1
    assert done.json["cells"][0]["evaluated"] == 100
    assert "other settings (checkpoint_sha256, evaluated)" in done.err
    assert kept.items() < files(out / "cells").items()
    assert len(parquet.read_table(out / "results.parquet")) == 1


def test_the_identity_contains_everything_that_changes_a_result(checkpoints, tmp_path):
    def identity(weights=checkpoints[0], method="sparsegpt", **options):
        chosen = Evaluator(DataSource("digits"), **options)
        cell = Cell("trained", method, "2:4", 16, 0)
        return Task(cell, open_checkpoint(weights, chosen, (MODEL,), Console(quiet=True)), chosen, tmp_path).identity

    usual = identity()
    assert usual == identity(seed=5) == identity(batch_size=7)  # all images are evaluated, in batches of any size
    for other in (
        identity(checkpoints[1]),
        identity(method="balanced"),
        identity(samples=100),
        identity(samples=100, seed=5),
    ):
        assert usual != other
    assert identity(samples=100) != identity(samples=100, seed=5)


def test_a_failing_cell_is_reported_and_the_others_are_computed(inside, checkpoints, cli, tmp_path):
    out = tmp_path / "out"
    sweep = ("sweep", *CODE, "--weights", checkpoints[0], "--method", "magnitude", "--pattern", "3:7", "--out", out)
    done = cli(*sweep, "--pattern", "1:4")
    assert done.code == 1
    assert "trained: magnitude 3:7: nothing to prune to 3:7" in done.err
    assert "1 of 2 cells" in done.out
    done = cli(*sweep, "--json")  # what failed is tried again
    assert (done.code, done.json["computed"]) == (1, 1)
    (failed,) = done.json["failed"]
    assert failed["cell"] == "trained: magnitude 3:7"
    assert failed["hint"]
    assert done.json["cells"] == []
    assert "error" in json.loads(cell_of(out, "trained_magnitude_3-7").read_text())
    assert len(parquet.read_table(out / "results.parquet")) == 0


def test_a_cell_whose_process_dies_fails_alone(inside, checkpoints, cli, tmp_path, monkeypatch):
    def dying(function, items, jobs):
        for task in items:
            yield task, None if task.cell.pattern == "2:4" else function(task)

    monkeypatch.setattr(runner, "each_in_processes", dying)
    done = cli("sweep", *CODE, "--weights", checkpoints[0], "--method", "magnitude", "--out", tmp_path / "out")
    assert done.code == 1
    assert "magnitude 2:4: its process died, perhaps out of memory. Run again with fewer --jobs." in done.err
    assert "1 of 2 cells" in done.out


def test_networks_are_compared_without_labels_too(inside, checkpoints, cli, tmp_path):
    images = open_data("digits").evaluation.samples.images.read(range(60))
    for name, part in (("train", images[:30]), ("test", images[30:])):
        np.savez(tmp_path / f"{name}.npz", images=part)
    data = ("--data", f"npz:{tmp_path / 'train.npz'}", "--eval-data", f"npz:{tmp_path / 'test.npz'}")
    sweep = (
        "sweep",
        *CODE,
        "--weights",
        checkpoints[0],
        *data,
        "--method",
        "magnitude",
        "--pattern",
        "0.9",
        "--json",
    )
    (row,) = cli(*sweep, "--samples", 8, "--out", tmp_path / "out").json["cells"]
    assert (row["evaluated"], row["top1"], row["difference"]) == (30, None, None)
    assert row["kl"] > 0
    assert 0 <= row["disagreement"] <= 100


MAPS = """
import numpy as np
from torch import nn

def net():
    body = [nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*body, nn.Conv2d(16, 4, 1))

class Right:
    higher_is_better = True

    def __init__(self):
        self.right, self.all = 0, 0

    def update(self, outputs, labels):
        self.right += (outputs.argmax(axis=1) == labels).sum()
        self.all += labels.size

    def compute(self):
        return {"right": 100 * self.right / self.all}

def error(outputs, labels):
    return {"error": np.square(outputs).mean(axis=(1, 2, 3))}

error.higher_is_better = False
"""


@pytest.fixture
def maps(tmp_path, monkeypatch):
    """A folder with a network of maps, its checkpoint, its data and two metrics; gives the options of a sweep."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    Path("maps.py").write_text(MAPS)
    torch.manual_seed(0)
    save_checkpoint(Path("net.safetensors"), import_object("maps.py:net")().state_dict(), {"model": "maps.py:net"})
    generator = np.random.default_rng(0)
    for name, count in (("train", 16), ("val", 20)):
        images = generator.integers(0, 256, (count, 3, 8, 8), dtype=np.uint8)
        np.savez(f"{name}.npz", images=images, labels=(images[:, 0] // 64).astype(np.int64))
    options = ("--model", "maps.py:net", "--data", "npz:train.npz", "--eval-data", "npz:val.npz", "--samples", 8)
    return ("sweep", "--weights", "net.safetensors", *options, "--pattern", "2:4", "--out", "out")


@pytest.mark.parametrize(("metric", "figure"), [("Right", "right"), ("error", "error")])
def test_a_metric_stands_where_top1_stands(maps, cli, metric, figure, request):
    """Against the metric computed by hand, and the interval of the library."""
    done = cli(*maps, "--method", "magnitude", "--method", "sparsegpt", "--metric", f"maps.py:{metric}", "--json")
    assert done.code == 0, done.err
    data = open_data("npz:train.npz", eval_data="npz:val.npz")
    images, labels = next(data.evaluation.batches(100))
    dense, sparse = (import_object("maps.py:net")().eval() for _ in range(2))
    for model in (dense, sparse):
        load_into(model, load_checkpoint(Path("net.safetensors")).state)
    prune_model(sparse, calibration_batches(data.training, 8, 32, 0), preset("balanced", method="magnitude").settings)
    with torch.no_grad():
        outputs = [model(torch.from_numpy(images)).numpy() for model in (dense, sparse)]
    if metric == "Right":
        expected = [100 * (each.argmax(1) == labels).mean() for each in outputs]
    else:
        expected = [np.square(each).mean() for each in outputs]
    row = done.json["cells"][0]
    found = row["metrics"][figure]["versions"]
    assert [found[name]["value"] for name in ("dense", "sparse")] == pytest.approx(expected, rel=1e-3)
    assert found["sparse"]["difference"]["low"] < expected[1] - expected[0] < found["sparse"]["difference"]["high"]
    assert (row["top1"], row["difference"], row["disagreement"], row["evaluated"]) == (None, None, None, 20)
    (table,) = [each for each in read_results(Path("out/results.csv")) if each["method"] == "magnitude"]
    assert table[f"metric_{figure}"] == pytest.approx(expected[1], rel=1e-3)
    assert table[f"metric_{figure}_difference"] == pytest.approx(expected[1] - expected[0], rel=1e-3)
    assert table[f"metric_{figure}_low"] < table[f"metric_{figure}_high"]
    assert f"{figure} lost" in Path("out/pictures/sparsity.svg").read_text()
    assert f"magnitude 2:4: {figure} " in done.err
    Path("maps.py").write_text(MAPS + "# edited\n")
    request.getfixturevalue("inside")
    assert cli(*maps, "--method", "magnitude", "--metric", f"maps.py:{metric}", "--json").json["computed"] == 1


def test_maps_need_a_metric_and_it_is_checked_before_the_first_cell(maps, cli):
    done = cli(*maps, "--quiet")
    assert (done.code, done.err) == (1, "error: the outputs are not logits. Give --metric: docs/metrics.md.\n")
    done = cli(*maps, "--quiet", "--metric", "maps.py:errr")
    assert (done.code, done.err) == (1, "error: maps.py has no errr. Did you mean maps.py:error?\n")
    Path("broken.py").write_text(MAPS.replace("np.square(outputs)", "np.square(outputs)[:3]"))
    done = cli(*maps, "--quiet", "--metric", "broken.py:error")
    assert "gives error of shape (3,) for 20 images" in done.err
    assert (done.code, done.err.count("\n")) == (1, 1), done.err
    assert not Path("out/cells").exists()


def test_a_network_at_chance_is_said_before_the_first_cell(inside, checkpoints, cli, tmp_path):
    images, labels = next(open_data("digits", mean=[0], std=[1]).evaluation.batches(120))
    np.savez(tmp_path / "wrong.npz", images=images, labels=(labels + 1) % 10)
    np.savez(tmp_path / "large.npz", images=images, labels=labels * 100)
    sweep = ("sweep", *CODE, "--weights", checkpoints[0], "--method", "magnitude", "--pattern", "2:4")
    done = cli(*sweep, "--eval-data", f"npz:{tmp_path / 'wrong.npz'}", "--out", tmp_path / "out")
    assert done.code == 0
    said = done.err.index("warning: the dense network is no better than chance: top-1 is ")
    assert said < done.err.index("trained: magnitude 2:4")
    done = cli(*sweep, "--eval-data", f"npz:{tmp_path / 'large.npz'}", "--out", tmp_path / "none", "--quiet")
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert "evaluation labels 0 to 900 do not fit a model of 10 outputs" in done.err


def test_a_sweep_killed_at_any_time_resumes_to_the_same_results(finished, checkpoints, tmp_path, cli, monkeypatch):
    out, chance = tmp_path / "out", random.Random(0)
    weights = [part for path in checkpoints for part in ("--weights", path)]
    command = ["sweep", *weights, *GRID, "--jobs", "1", "--out", out]

    def cells() -> int:
        return len(list((out / "cells").glob("[!.]*")))

    for number in (signal.SIGKILL, signal.SIGTERM):
        seen = cells()
        running = subprocess.Popen(
            [sys.executable, "-m", "sparsegpt_cli", *map(str, command)],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        until = seen + chance.randint(1, 6)
        while cells() < until and running.poll() is None:
            time.sleep(0.02)
        time.sleep(chance.uniform(0, 0.1))  # about one cell: both kills come before the last of 18
        running.send_signal(number)
        _, stderr = running.communicate(timeout=100)
        assert cells() >= seen
        if number == signal.SIGTERM:
            assert running.returncode == 130
            assert "Traceback" not in stderr
            assert stderr.splitlines()[-1].startswith("error: interrupted")
    monkeypatch.setattr(runner, "each_in_processes", each_here)
    assert cli(*command).code == 0

    expected, found = files(finished), files(out)
    assert expected.keys() == found.keys()
    timed = ("results.csv", "results.parquet", "sweep.json")
    for name, content in expected.items():
        if name.startswith("cells/"):
            one, other = json.loads(content)["result"], json.loads(found[name])["result"]
            assert one | {"seconds": 0} == other | {"seconds": 0}
        elif name not in timed:
            assert content == found[name], name


def test_hidden_files_of_others_stay(swept, inside):
    out, again = swept
    (out / "cells" / ".DS_Store").write_text("a file manager's")
    (out / "dense" / ".cache").mkdir()
    (out / "cells" / ".cell.json.1.partial").mkdir()  # left by a killed sweep
    done = again()
    assert done.code == 0, done.err
    assert (out / "cells" / ".DS_Store").exists()
    assert (out / "dense" / ".cache").exists()
    assert not (out / "cells" / ".cell.json.1.partial").exists()


def test_a_second_sweep_at_the_same_time_is_refused(swept):
    out, again = swept
    with locked(out, "sweep"):
        done = again()
    assert done.code == 1
    assert "another sweep" in done.err


def test_wrong_input_is_one_line(checkpoints, cli, tmp_path):
    out, images = tmp_path / "out", tmp_path / "images.npz"
    np.savez(images, images=np.zeros((20, 1, 8, 8), np.uint8), labels=np.arange(20) % 10)
    plain = tmp_path / "plain.safetensors"
    save_checkpoint(plain, load_checkpoint(checkpoints[0]).state, {})
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(checkpoints[0].read_bytes()[:1000])
    weights = ("--weights", checkpoints[0])
    wrong = {
        "unknown method 'bst'": (*weights, "--method", "bst"),
        "unknown pattern '2-4'": (*weights, "--pattern", "2-4"),
        "5000 calibration images are asked for": (*weights, "--samples", 5000),
        "2 checkpoints are called": (*weights, "--weights", tmp_path / "trained.safetensors"),
        "no checkpoint at": ("--weights", tmp_path / "none.safetensors"),
        "truncated or not a safetensors": ("--weights", broken),
        "does not name its model": ("--weights", plain),
        "has no evaluation split": (*weights, "--data", f"npz:{images}", "--samples", 8),
        "unknown data 'digit'": (*weights, "--data", "digit"),
        "not a memory size": (*weights, "--memory-limit", "much"),
    }
    for message, options in wrong.items():
        done = cli("sweep", *CODE, *options, "--out", out, "--quiet")
        assert done.code == 1, message
        assert message in done.err
        assert done.err.count("\n") == 1
        assert not out.exists()
    out.touch()
    done = cli("sweep", *CODE, *weights, "--out", out, "--quiet")
    assert (done.code, done.err.count("\n")) == (1, 1)
    for options in (("--samples", 0), ("--seeds", -1), ("--jobs", 0)):
        assert cli("sweep", *weights, *options, "--out", out).code == 2
    assert cli("sweep", "--out", out).code == 2


def test_code_that_a_checkpoint_names_does_not_run(checkpoints, tmp_path, cli):
    done = cli("sweep", "--weights", checkpoints[0], "--out", tmp_path / "out", "--quiet")
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert f"Give --model {MODEL} if you know that code" in done.err


def test_configurations(cli, monkeypatch):
    grids = []

    def capture(grid, *_, jobs, **__):
        grids.append((len(grid.cells()), {cell.pattern for cell in grid.cells()}, jobs))
        return runner.Swept([], [], [], [], 0)

    monkeypatch.setattr("sparsegpt_cli.sweep.sweep", capture)
    for name in ("digits", "fashion-mnist"):
        assert cli("sweep", ROOT / "configs" / f"sweep-{name}.yaml").code == 0
    assert cli("sweep", ROOT / "configs/sweep-fashion-mnist.yaml", "--pattern", "2:4", "--jobs", 7).code == 0
    patterns = {"2:4", "1:4", "4:8", "2:8", "0.5", "0.7", "0.9"}
    assert grids == [(102, {"2:4", "1:4", "0.7"}, 2), (4760, patterns, 2), (680, {"2:4"}, 7)]


def test_not_under_torchrun(checkpoints, cli, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    done = cli("sweep", *CODE, "--weights", checkpoints[0], "--out", tmp_path / "out")
    assert done.code == 1
    assert "without torchrun" in done.err
