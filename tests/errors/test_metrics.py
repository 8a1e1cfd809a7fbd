"""Metrics that cannot be used, and limits that are missed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support.error_rows import check
from tests.support.error_rows.metrics import ROWS
from tests.support.graphs import save_maps

METRICS = """
import numpy as np

NUMBER = 3

def undeclared(outputs, labels):
    return labels

def failing(outputs, labels):
    return outputs["boxes"] if isinstance(outputs, dict) else {}["boxes"]

def total(outputs, labels):
    return np.abs(outputs).mean()

def undefined(outputs, labels):
    return np.full(len(outputs), np.nan)

def error(outputs, labels):
    return np.abs(outputs[:, 1] - labels).mean(axis=(1, 2))

failing.higher_is_better = total.higher_is_better = undefined.higher_is_better = True
error.higher_is_better = False
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("metrics")
    weight = np.eye(4, dtype=np.float32)[:, :, None, None]
    save_maps(folder / "dense.onnx", weight)
    save_maps(folder / "sparse.onnx", weight * np.float32([1, 0, 1, 0])[:, None, None, None])
    (folder / "mine.py").write_text(METRICS)
    images = np.random.default_rng(0).random((12, 4, 4, 4), dtype=np.float32)
    np.savez(folder / "train.npz", images=images + 1)
    np.savez(folder / "bare.npz", images=images)
    np.savez(folder / "maps.npz", images=images, labels=images.argmax(1))
    np.savez(folder / "small.npz", images=images, labels=images.argmax(1)[:, :2, :2])
    return folder


@pytest.mark.parametrize("row", [row for row in ROWS if not row.test], ids=str)
def test_a_row(cli, folder, monkeypatch, row):
    check(row, cli, folder, monkeypatch)
