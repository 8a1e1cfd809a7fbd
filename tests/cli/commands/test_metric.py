"""Metrics and limits in prune-export and benchmark, with the examples of docs/metrics.md."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import run_here
from tests.support.graphs import save_maps
from tests.support.paths import ROOT

NETWORK = """
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    body = [nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*body, nn.Conv2d(16, 4, 1))
"""
EXAMPLES = re.findall(r"```python\n# mymetric\.py\n(.*?)```", (ROOT / "docs" / "metrics.md").read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A network of maps, images with maps of classes, and the metrics of the documentation."""
    path = tmp_path_factory.mktemp("metric")
    (path / "mapnet.py").write_text(NETWORK)
    (path / "mymetric.py").write_text("\n".join(EXAMPLES))
    rng = np.random.default_rng(0)
    for name, count in (("train", 24), ("val", 20)):
        images = rng.integers(0, 256, (count, 3, 16, 16), dtype=np.uint8)
        np.savez(path / f"{name}.npz", images=images, labels=(images[:, 0] // 64).astype(np.int64))
    return path


DATA = ["--data", "npz:train.npz", "--eval-data", "npz:val.npz"]


@pytest.fixture(scope="module")
def run(folder):
    options = ["--model", "mapnet.py:net", *DATA, "--quality", "fast", "--int8", "--out", "out", "--json"]
    limits = ["--metric", "mymetric.py:PixelAccuracy", "--max-drop", "pixel_accuracy=0", "--gate-on", "bound"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", [*sys.path])
        return run_here("prune-export", "--layers=all", *options, *limits)


def test_prune_export_measures_every_version_and_judges_the_sparse_ones(run, folder) -> None:
    assert run.code == 1
    (figure,) = run.json["metrics"].items()
    assert figure[0] == "pixel_accuracy"
    versions = figure[1]["versions"]
    precisions = ("", ".fp16", ".int8")
    assert set(versions) == {"magnitude", *(f"{arm}{kind}" for arm in ("dense", "sparse") for kind in precisions)}
    assert versions["sparse"]["difference"]["low"] < versions["sparse"]["difference"]["high"]
    assert run.json["passed"] is False
    assert [text.split(" by ")[0] for text in run.json["failures"]] == [
        f"pixel_accuracy of sparse{kind} fell" for kind in precisions
    ]
    assert json.loads((folder / "out" / "prune.json").read_text())["metrics"] == run.json["metrics"]
    assert (folder / "out" / "report.html").exists()


@pytest.mark.parametrize("name", ["PixelAccuracy", "miou"])
def test_benchmark_measures_the_same_metric(run, folder, cli, monkeypatch, name) -> None:
    pair = ["out/dense.fp16.onnx", "out/sparse.fp16.onnx"]
    metric = "miou" if name == "miou" else f"mymetric.py:{name}"
    options = ["--runtime", "onnxruntime", "--rounds", 2, "--metric", metric, "--json"]
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    outcome = cli("benchmark", *pair, *DATA, *options)
    assert outcome.code == 0, outcome.err
    assert outcome.json["accuracy"] is None
    assert outcome.json["outputs"]["samples"] == 20
    assert outcome.json["passed"] is None
    (figure,) = outcome.json["metrics"]
    assert figure in outcome.json["verdict"]
    if name != "miou":
        for arm in ("dense", "sparse"):
            found = outcome.json["metrics"][figure]["versions"][arm]["value"]
            assert found == run.json["metrics"][figure]["versions"][f"{arm}.fp16"]["value"]


def test_a_function_of_the_documentation(folder, monkeypatch) -> None:
    from deploy.measure import load_metric

    monkeypatch.chdir(folder)
    metric = load_metric("mymetric.py:error")
    found = metric.source(np.ones((3, 1, 4, 4)), np.zeros((3, 4, 4)))
    assert found["depth_error"].tolist() == [1, 1, 1]
    assert not metric.higher_is_better("depth_error")


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--max-drop", "-1"], 2, "'-1' is no limit"),
        (["--max-drop", "nan"], 2, "'nan' is no limit"),
        (["--max-drop", "miou=x"], 2, "'miou=x' is no limit"),
        (["--max-drop", "1", "--max-drop", "2"], 2, "top1 has two limits"),
        (["--max-drop", "miou=1"], 2, "the figure 'miou' needs --metric"),
        (["--gate-on", "low"], 2, "'low' is not value or bound"),
        (["--metric", "mIoU"], 1, "unknown metric 'mIoU'"),
        (["--metric", "nowhere.py:f"], 1, "there is no such file"),
    ],
)
@pytest.mark.parametrize("command", ["benchmark", "prune-export"])
def test_options_that_do_not_fit(cli, tmp_path, monkeypatch, command, options, code, message) -> None:
    monkeypatch.chdir(tmp_path)
    given = ["dense.onnx", "sparse.onnx"] if command == "benchmark" else ["--model", "simple_cnn", "--out", "out"]
    outcome = cli(command, *given, "--data", "digits", *options)
    assert outcome.code == code
    assert message in " ".join(outcome.err.replace("│", " ").split())
    assert not (tmp_path / "out").exists()


def test_a_metric_needs_evaluation_images(cli, folder, monkeypatch) -> None:
    monkeypatch.chdir(folder)
    outcome = cli(
        "prune-export", "--layers=all", "--model", "mapnet.py:net", *DATA[:2], "--metric", "miou", "--out", "none"
    )
    assert outcome.code == 1
    assert "npz:train.npz has no evaluation split" in outcome.err


@pytest.mark.parametrize(("fail_on", "passed"), [((), None), (("--fail-on", "dense"), False)])
def test_verify_says_whether_it_passed(cli, tmp_path, fail_on, passed) -> None:
    save_maps(tmp_path / "dense.onnx", np.ones((4, 4, 1, 1), np.float32))
    outcome = cli("verify", tmp_path / "dense.onnx", *fail_on, "--json")
    assert outcome.json["passed"] is passed
    assert bool(outcome.json["failures"]) == (outcome.code == 1) == (passed is False)
