"""Metrics for maps of classes and for images, and the loader of metrics by name."""

from __future__ import annotations

__all__ = ["MeanIoU", "load_metric", "psnr"]

from typing import Any, Dict, Tuple

import numpy as np
import numpy.typing as npt

from deploy.measure.metrics import Metric
from sparsegpt_core.errors import DataError, InputError
from sparsegpt_core.user_code import import_object

_VOID = 255  # the class of pixels that count for nothing, as in Pascal VOC and Cityscapes
_LEAST_MSE = 1e-10  # 100 dB: equal images have no finite PSNR

_BUILT_IN = {
    "miou": "deploy.measure.builtin_metrics:MeanIoU",
    "map": "calibration.evaluation:DetectionMap",  # torchmetrics loads torch
    "psnr": "deploy.measure.builtin_metrics:psnr",
}


def load_metric(spec: str) -> Metric:
    """Return a metric.

    Args:
        spec: ``miou``, ``map``, ``psnr``, or a function or class as ``package.module:name`` or ``file.py:name``, whose
            code is imported and run.

    Raises:
        InputError: There is no such metric, or it cannot be imported.

    Example:
        >>> load_metric("psnr").higher_is_better("psnr")
        True
    """
    if ":" not in spec and spec not in _BUILT_IN:
        known = ", ".join(_BUILT_IN)
        raise InputError(f"unknown metric '{spec}'", f"Use {known}, package.module:name or file.py:name.")
    return Metric(import_object(_BUILT_IN.get(spec, spec)), spec)


class MeanIoU:
    """The mean intersection over union of classes, in percent, of maps.

    Classes that occur neither in the labels nor in the predictions are left out. Pixels with label 255 or below 0 count
    for nothing.

    Example:
        >>> metric = MeanIoU()
        >>> metric.update(np.array([[[0, 0], [1, 1]]]), np.array([[[0, 1], [1, 1]]]))
        >>> round(metric.compute()["miou"], 2)
        58.33
    """

    higher_is_better = True

    def __init__(self) -> None:
        self._counts = np.zeros((3, 0), np.int64)  # intersection, prediction and label pixels of each class

    def update(self, outputs: Any, labels: Any) -> None:
        """Take scores (N, classes, H, W) or classes (N, H, W), and labels (N, H, W).

        Raises:
            DataError: There are no labels, or their shape does not fit.
        """
        scores = _first_output(outputs)
        predicted = scores.argmax(axis=1) if scores.ndim == 4 else scores.astype(np.int64)
        _check_labels("miou", labels, predicted.shape)
        counted = (labels >= 0) & (labels != _VOID)
        truth, found = labels[counted].astype(np.int64), predicted[counted]
        size = int(max(truth.max(initial=-1), found.max(initial=-1), self._counts.shape[1] - 1)) + 1
        self._counts = np.pad(self._counts, ((0, 0), (0, size - self._counts.shape[1])))
        for row, classes in enumerate((truth[truth == found], found, truth)):
            self._counts[row] += np.bincount(classes, minlength=size)

    def compute(self) -> Dict[str, float]:
        """Return ``miou``.

        Raises:
            DataError: All pixels count for nothing.
        """
        common, found, truth = self._counts
        union = found + truth - common
        if not union.any():
            raise DataError("miou: no pixel of the labels has a class", "Give labels other than 255.")
        return {"miou": 100 * float((common[union > 0] / union[union > 0]).mean())}


def psnr(outputs: Any, labels: Any) -> Dict[str, npt.NDArray[np.float64]]:
    """Return the peak signal-to-noise ratio of each image in dB, for images on the scale 0 to 1.

    Args:
        outputs: Images (N, ...).
        labels: The true images (N, ...); bytes are scaled to 0..1.

    Raises:
        DataError: There are no labels, or their shape does not fit.

    Example:
        >>> psnr(np.full((1, 3, 2, 2), 0.5), np.full((1, 3, 2, 2), 0.6))["psnr"].round(3)
        array([20.])
    """
    images = _first_output(outputs)
    _check_labels("psnr", labels, images.shape)
    true = labels / 255 if labels.dtype == np.uint8 else labels
    squares = np.square(images.astype(np.float64) - true).reshape(len(images), -1).mean(axis=1)
    return {"psnr": -10 * np.log10(np.maximum(squares, _LEAST_MSE))}


psnr.higher_is_better = True  # type: ignore[attr-defined]


def _first_output(outputs: Any) -> npt.NDArray[Any]:
    """Return the first of several outputs, or the only one."""
    return np.asarray(next(iter(outputs.values())) if isinstance(outputs, dict) else outputs)


def _check_labels(metric: str, labels: Any, shape: Tuple[int, ...]) -> None:
    found = getattr(labels, "shape", None)
    if found != shape:
        what = "no labels" if labels is None else f"labels of shape {found}"
        raise DataError(f"{metric} has {what} for outputs of shape {shape}", f"Give labels of shape {shape}.")
