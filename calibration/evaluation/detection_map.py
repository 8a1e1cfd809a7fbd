"""The mean average precision of a detector, by torchmetrics."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sparsegpt_core.errors import DataError, InputError, MissingDependencyError

__all__ = ["DetectionMap"]

_DETECTION_HINT = (
    "Outputs: boxes (N, M, 4) in pixels as x1, y1, x2, y2, with scores (N, M) and labels (N, M), or scores (N, M, "
    "classes). For other outputs, give your own class that decodes them: see docs/metrics.md."
)


class DetectionMap:
    """The mean average precision of detections by torchmetrics, in percent: COCO's ``map`` and ``map_50``.

    Derive from it to decode other outputs: give ``update`` its ``boxes``, ``scores`` and ``labels``.

    Raises:
        MissingDependencyError: torchmetrics or pycocotools is not installed.
    """

    higher_is_better = True

    def __init__(self) -> None:
        try:
            from torchmetrics.detection import MeanAveragePrecision

            self._metric: Any = MeanAveragePrecision()
        except ImportError as error:
            raise MissingDependencyError(
                "the metric map needs torchmetrics and pycocotools", 'pip install "torchmetrics[detection]"'
            ) from error
        self._metric.warn_on_many_detections = False

    def update(self, outputs: Any, labels: Any) -> None:
        """Take detections and true boxes.

        Args:
            outputs: ``boxes`` (N, M, 4) in pixels as x1, y1, x2, y2; ``scores`` (N, M) with ``labels`` (N, M), or
                ``scores`` (N, M, classes).
            labels: True boxes (N, M, 5) as class, x1, y1, x2, y2, where class -1 fills up; or for each image a dict
                with ``boxes`` (M, 4) and ``labels`` (M).

        Raises:
            DataError: There are no labels.
            InputError: The outputs have other names or shapes.
        """
        boxes, scores, classes = _detections(outputs)
        found = [{"boxes": b, "scores": s, "labels": c} for b, s, c in zip(boxes, scores, classes)]
        true = [_true_boxes(each) for each in _label_rows(labels, len(boxes))]
        self._metric.update(_tensors(found), _tensors(true))

    def compute(self) -> dict[str, float]:
        """Return ``map`` and ``map_50``."""
        found = self._metric.compute()
        return {name: 100 * float(found[name]) for name in ("map", "map_50")}


def _label_rows(labels: Any, count: int) -> Any:
    if labels is None or len(labels) != count:
        raise DataError(
            f"map has {'no' if labels is None else len(labels)} labels for {count} images",
            "Give labels (N, M, 5): class, x1, y1, x2, y2 in pixels; class -1 fills up.",
        )
    return labels


def _detections(outputs: Any) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    named = outputs if isinstance(outputs, dict) else {}
    boxes, scores, classes = (named.get(name) for name in ("boxes", "scores", "labels"))
    if boxes is None or scores is None or boxes.ndim != 3 or boxes.shape[2] != 4:
        shapes = ", ".join(f"{name} {value.shape}" for name, value in named.items()) or str(np.shape(outputs))
        raise InputError(f"map cannot read the outputs {shapes} as detections", _DETECTION_HINT)
    if scores.ndim == 3:
        scores, classes = scores.max(axis=2), scores.argmax(axis=2)
    if classes is None or scores.shape != boxes.shape[:2] or classes.shape != scores.shape:
        raise InputError("map needs one score and one class for each box", _DETECTION_HINT)
    return boxes.astype(np.float32), scores.astype(np.float32), classes.astype(np.int64)


def _true_boxes(label: Any) -> dict[str, npt.NDArray[Any]]:
    if isinstance(label, dict):
        boxes, classes = np.asarray(label["boxes"]).reshape(-1, 4), np.asarray(label["labels"])
    else:
        rows = np.asarray(label).reshape(-1, 5)
        rows = rows[rows[:, 0] >= 0]
        boxes, classes = rows[:, 1:], rows[:, 0]
    return {"boxes": boxes.astype(np.float32), "labels": classes.astype(np.int64)}


def _tensors(rows: list[dict[str, npt.NDArray[Any]]]) -> list[dict[str, torch.Tensor]]:
    return [{name: torch.from_numpy(value) for name, value in row.items()} for row in rows]
