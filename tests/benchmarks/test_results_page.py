"""docs/results.md: means of what was measured, and nothing else."""

from __future__ import annotations

import json

import pytest

from benchmarks.results_page import PAGE, RAW, page
from sparsegpt_cli.sweep.tables import read_results, write_tables
from tests.support.sweeps import tables


def rows_of(checkpoint, changes):
    found, _ = tables(((checkpoint, "cnn", 93.0),), ("balanced",), ("2:4",), seeds=range(len(changes)))
    return [
        {**row, "difference": change, "top1": 93.0 + change, "kl": 1e-3}
        for row, change in zip(found, changes, strict=True)
    ]


@pytest.fixture
def raw(tmp_path):
    def keep(network, name, rows):
        write_tables(tmp_path / network, rows, [])
        (tmp_path / network / "results.csv").rename(tmp_path / network / f"{name}.csv")

    keep("resnet18", "two-four", rows_of("resnet18", (-0.1, -0.2, -0.15)))
    keep("simple_cnn", "two-four", rows_of("simple_cnn", (-0.3, -0.3, -0.6)))
    keep("resnet18", "training", rows_of("resnet18-1-epoch", (-1.0, -2.0)))
    told = {"evaluation": {"top1": 92.9}, "history": [{"seconds": 90}, {"seconds": 60}]}
    for name in ("train", "train-before"):
        (tmp_path / "resnet18" / f"{name}.json").write_text(json.dumps(told))
    for seed, after in enumerate((92.95, 93.05)):
        evaluation = {name: {"top1": top1} for name, top1 in (("dense", 93.0), ("before", 92.8), ("after", after))}
        (tmp_path / "resnet18" / f"finetune-{seed}.json").write_text(
            json.dumps({"evaluation": evaluation, "best_epoch": seed})
        )
    return tmp_path


def test_tables_hold_means_and_spreads(raw):
    text = page(raw)
    assert "| ResNet-18 | 2 + 2 | 5 | 92.90 | 93.0 ✗ |" in text
    assert "| ResNet-18 | 93.00 | balanced | 92.85 (92.80 … 92.90) | -0.15 (-0.20 … -0.10) |" in text
    assert "lose 0.2 points at most: SimpleCNN -0.40 ✗, ResNet-18 -0.15 ✓." in text
    assert "| ResNet-18 | 93.00 | balanced | 91.50 (91.00 … 92.00) |" in text
    dense, before = "93.00 (93.00 … 93.00)", "92.80 (92.80 … 92.80)"
    tuned = f"| ResNet-18 | {dense} | {before} | 93.00 (92.95 … 93.05) | 1 of 2 | +0.00 (-0.05 … +0.05)"
    assert f"{tuned} | ✓ |" in text


def test_what_was_not_measured_is_said(tmp_path):
    assert page(tmp_path).count("*Not measured yet.*") == 8


def test_results_survive_a_csv(raw):
    (row, *_) = read_results(raw / "resnet18" / "two-four.csv")
    assert (row["checkpoint"], row["pattern"], row["samples"], row["difference"]) == ("resnet18", "2:4", 256, -0.1)
    assert row["dense_top5"] is None or isinstance(row["dense_top5"], float)


def test_the_page_is_that_of_the_raw_results():
    assert PAGE.read_text() == page(RAW), "run: make results"
