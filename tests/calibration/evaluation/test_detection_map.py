"""Mean average precision of detections, on torchmetrics itself."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from calibration.evaluation import DetectionMap
from deploy.measure import compare_versions, load_metric
from sparsegpt_core.errors import DataError, InputError, MissingDependencyError

BOXES = np.array([[[0, 0, 10, 10], [20, 20, 40, 40]], [[5, 5, 25, 25], [0, 0, 0, 0]]], np.float32)
LABELS = np.concatenate([np.array([[[0], [1]], [[1], [-1]]]), BOXES], axis=2)  # class -1 fills up


@pytest.fixture
def torchmetrics() -> None:
    pytest.importorskip("torchmetrics")
    pytest.importorskip("pycocotools")


def detections(shift: float = 0.0) -> dict[str, Any]:
    scores = np.array([[0.9, 0.8], [0.7, 0.0]], np.float32)
    return {"boxes": BOXES + shift, "scores": scores, "labels": np.array([[0, 1], [1, 2]])}


def test_true_boxes_score_100_percent(torchmetrics: None) -> None:
    metric = DetectionMap()
    metric.update(detections(), LABELS)
    assert metric.compute() == pytest.approx({"map": 100, "map_50": 100})
    dicts = [{"boxes": each[each[:, 0] >= 0, 1:], "labels": each[each[:, 0] >= 0, 0]} for each in LABELS]
    same = DetectionMap()
    same.update(detections(), dicts)
    assert same.compute() == metric.compute()


def test_scores_of_all_classes(torchmetrics: None) -> None:
    metric = DetectionMap()
    scores = np.zeros((2, 2, 3), np.float32)
    scores[0, 0, 0], scores[0, 1, 1], scores[1, 0, 1] = 0.9, 0.8, 0.7
    metric.update({"boxes": BOXES, "scores": scores}, LABELS)
    assert metric.compute()["map_50"] == pytest.approx(100)


def test_shifted_boxes_lose(torchmetrics: None) -> None:
    sessions = {"dense": lambda x: detections(), "sparse": lambda x: detections(3.0)}
    found = compare_versions(sessions, [(np.zeros((2, 3, 4, 4)), LABELS)] * 10, load_metric("map")).metrics
    assert found is not None
    gap = found["map"].differences["sparse"]
    assert gap is not None
    assert gap.value < -20
    assert gap.low <= gap.value <= gap.high


@pytest.mark.parametrize(
    ("outputs", "labels", "message"),
    [
        (np.zeros((2, 84, 10)), LABELS, r"map cannot read the outputs \(2, 84, 10\) as detections"),
        ({"boxes": BOXES, "scores": np.zeros((2, 2))}, LABELS, "map needs one score and one class for each box"),
        (detections(), None, "map has no labels for 2 images"),
    ],
)
def test_what_cannot_be_judged(torchmetrics: None, outputs: Any, labels: Any, message: str) -> None:
    with pytest.raises((DataError, InputError), match=message) as caught:
        DetectionMap().update(outputs, labels)
    assert caught.value.hint


def test_torchmetrics_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchmetrics.detection", None)
    with pytest.raises(MissingDependencyError, match="needs torchmetrics") as caught:
        load_metric("map").accumulator()
    assert caught.value.hint == 'pip install "torchmetrics[detection]"'
