"""The comparison of two runs: what it says, what it refuses, and hostile input."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from sparsegpt_cli.report import render_comparison
from sparsegpt_core.errors import InputError
from tests.support.reports import Page, engine_run, hostile_engine_run, hostile_run, key_paths, sample_run, write_run


def other_run(layers: int = 12) -> dict[str, Any]:
    """The sample run with another damping, half the error, and one layer less."""
    files = copy.deepcopy(sample_run(layers))
    prune = files["prune.json"]
    prune["settings"] |= {"damping": 0.05, "look_ahead": True}
    prune["accuracy"]["sparse"] |= {"top1": 97.5, "disagreement": 1.25}
    prune["prediction"]["bound"] = 1.1
    for layer in prune["layers"]:
        if layer["relative_error"] is not None:
            layer["relative_error"] /= 2
    prune["layers"][4] |= {"status": "dense", "reason": "SENSITIVE", "sparsity": 0.0, "relative_error": None}
    return files


def compare(tmp_path: Path, first: dict[str, Any], second: dict[str, Any]) -> Page:
    a, b = write_run(tmp_path / "one", first), write_run(tmp_path / "two", second)
    return Page(render_comparison(a, b, tmp_path / "comparison.html").read_text(encoding="utf-8"))


def plain(page: Page) -> str:
    return page.text.replace("\xa0", " ")


def test_results_settings_and_layers_are_side_by_side(tmp_path: Path) -> None:
    page = compare(tmp_path, sample_run(12), other_run())
    assert not page.problems
    assert len(page.ids) == len(set(page.ids))
    text = plain(page)
    for phrase in (
        f"A : {tmp_path / 'one'} · 2026-11-22T05:10:00+00:00 · sparsegpt-trt 0.1.0",
        "A prunes 9 of 12 layers, B prunes 8. A changes the class of 0.83 % of 599 held-out images, B of 1.25 %. "
        "In the median layer that both prune, the output error of B is 50 % of A's. "
        "The estimated speed-up is 1.18× for A and 1.10× for B.",
        "Layers pruned 9 of 12 8 of 12",
        "Top-1 accuracy, pruned 98.16 % 97.50 %",
        "Images that change class 0.83 % 1.25 %",
        "Speed-up, estimated 1.18× 1.10×",
        "A: SparseGPT 98.16",
        "B: SparseGPT 97.50",
        "settings.damping 0.01 0.05",
        "settings.look_ahead – True",
        "Only A prunes layer1.1.conv1 .",
    ):
        assert phrase in text, phrase
    assert "settings.pattern" not in text
    assert "Only B" not in text
    assert "Warnings" not in text
    assert page.text.endswith("fc 10 × 512 dense: HEAD dense: HEAD – – –")
    assert "layer1.1.conv1 128 × 64 × 3 × 3 pruned, 50.0 % zeros dense: SENSITIVE 0.000842 – –" in text
    assert "#layer-4" in page.links
    (explained,) = {each for each in page.explained if each.startswith("layer1.1.conv1: ")}
    assert explained.startswith("layer1.1.conv1: A 0.")
    assert page.tags["svg"] == 1


def test_two_equal_runs_differ_in_nothing(tmp_path: Path) -> None:
    text = plain(compare(tmp_path, sample_run(4), sample_run(4)))
    assert "Model, data, settings and environment are the same." in text
    assert "Both runs prune the same layers." in text
    assert "the output error of B is 100 % of A's" in text


def test_other_weights_and_other_data_are_warnings(tmp_path: Path) -> None:
    other = copy.deepcopy(sample_run(4))
    other["prune.json"]["model"]["weights_sha256"] = "0" * 64
    other["prune.json"]["data"]["samples"] = 64
    text = plain(compare(tmp_path, sample_run(4), other))
    assert "The runs pruned different weights." in text
    assert "The runs used different data" in text


def test_measured_speedups_are_compared(tmp_path: Path) -> None:
    text = plain(compare(tmp_path, engine_run(), sample_run(6)))
    assert "Speed-up, measured 1.11× (1.11 … 1.11) –" in text
    assert "Measured on tensorrt 10.9.0 on NVIDIA A10 –" in text


def test_outputs_and_metrics_are_compared(tmp_path: Path) -> None:
    runs = [copy.deepcopy(sample_run(4)) for _ in range(2)]
    for files, error, value in zip(runs, (0.031, 0.05), (70.92, 69.5), strict=True):
        files["prune.json"]["accuracy"] = None
        files["prune.json"]["outputs"] = {"samples": 80, "relative_errors": {"sparse": {"boxes": error}}}
        versions = {"dense": {"value": 71.23}, "sparse.fp16": {"value": value}}
        files["prune.json"]["metrics"] = {"miou": {"versions": versions}}
    text = plain(compare(tmp_path, *runs))
    assert "Relative error of boxes 0.031 0.05" in text
    assert "miou 71.23 → 70.92 71.23 → 69.5" in text
    assert "Top-1" not in text


@pytest.mark.parametrize(
    ("change", "phrase"),
    [
        (lambda layers: layers.pop(2), "layer1.0.conv3 is 128 × 64 × 3 × 3 in the first and missing in the second"),
        (lambda layers: layers[0].update(shape=[64, 3, 3, 3]), "conv1 is 64 × 3 × 7 × 7 in the first and 64 × 3 × 3"),
        (lambda layers: layers[0].update(name="stem"), "conv1 is 64 × 3 × 7 × 7 in the first and missing in"),
    ],
)
def test_runs_of_different_networks_are_refused(tmp_path: Path, change: Any, phrase: str) -> None:
    other = copy.deepcopy(sample_run(6))
    change(other["prune.json"]["layers"])
    with pytest.raises(InputError, match="runs of different networks") as caught:
        compare(tmp_path, sample_run(6), other)
    assert phrase in str(caught.value)
    assert not (tmp_path / "comparison.html").exists()


@pytest.mark.parametrize("make", [hostile_run, hostile_engine_run])
def test_hostile_names_stay_text(tmp_path: Path, make: Any) -> None:
    other = copy.deepcopy(make())
    other["prune.json"]["layers"][3]["status"] = "dense"
    other["prune.json"]["settings"]["method"] += "<b>"
    page = compare(tmp_path, make(), other)
    assert not page.problems
    assert {"img", "b"}.isdisjoint(page.tags)
    assert page.text.count("<script>document.title=") > 10
    assert "\u202e" not in page.text


@pytest.mark.parametrize("content", [{}, {"layers": []}, {"layers": [{}]}, {"layers": [{"name": "conv1"}]}])
def test_runs_that_recorded_little_are_compared(tmp_path: Path, content: dict[str, Any]) -> None:
    assert not compare(tmp_path, {"prune.json": content}, {"prune.json": content}).problems


def test_any_key_may_be_missing(tmp_path: Path, no_charts: None) -> None:
    full = sample_run(2)
    for *way, key in key_paths(full["prune.json"]):
        damaged = copy.deepcopy(full)
        parent: Any = damaged["prune.json"]
        for step in way:
            parent = parent[step]
        if isinstance(parent, dict) and key not in ("name", "shape", "layers"):
            parent[key] = None
            assert not compare(tmp_path, full, damaged).problems


def test_same_files_same_bytes(tmp_path: Path) -> None:
    a, b = write_run(tmp_path / "a", sample_run(4)), write_run(tmp_path / "b", sample_run(4))
    pages = [render_comparison(a, b, tmp_path / name).read_bytes() for name in ("1.html", "2.html")]
    assert pages[0] == pages[1]


def test_the_command_writes_the_comparison(tmp_path: Path, cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "a", sample_run(4))
    write_run(tmp_path / "b", sample_run(4))
    write_run(tmp_path / "c", sample_run(6))
    assert cli("report", "a", "b", "--json").json == {"report": "comparison.html"}
    assert "sparsegpt-trt comparison" in (tmp_path / "comparison.html").read_text()
    again = cli("report", "a", "b")
    assert (again.code, again.err.count("\n")) == (1, 1)
    assert "comparison.html exists" in again.err
    assert cli("report", "a", "b", "--force").code == 0
    assert cli("report", "a", "b", "--out", "x.html").code == 0
    refused = cli("report", "a", "c", "--out", "y.html")
    assert (refused.code, refused.err.count("\n")) == (1, 1)
    assert "a and c are runs of different networks" in refused.err
    assert cli("report", "a", "--out", "z.html").code == 1
    assert cli("report", "a", "b", "--out", "z.txt").code == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c", "comparison.html", "x.html"]
