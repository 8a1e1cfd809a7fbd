"""Predicts the gain of 2:4: measures it if possible, or else estimates it. Loads no torch."""

from __future__ import annotations

from pathlib import Path

from deploy.benchmark import EngineSettings
from deploy.builder import BuildSettings
from deploy.graph import OnnxFile, Shapes
from deploy.machine import find_runtime
from deploy.measure import QUICK_TIMING, TimingSettings
from deploy.predict import EstimatedPrediction, MeasuredPrediction, predict, try_pruning
from sparsegpt_core.errors import InputError
from sparsegpt_core.progress import Progress, Say, silent

__all__ = ["predict_file"]


def predict_file(
    model: Path,
    shapes: Shapes | None = None,
    measure: bool | None = None,
    timing: TimingSettings = QUICK_TIMING,
    seed: int = 0,
    progress: Progress = silent,
    say: Say = lambda _: None,
    gpu: str | None = None,
    precision: str | None = None,
) -> tuple[EstimatedPrediction | MeasuredPrediction, str]:
    """Predict the gain of 2:4 for a dense ONNX file.

    Args:
        model: A dense ONNX file.
        shapes: As for ``build``. The opt shape is used.
        measure: Whether to measure or to estimate; None: measure if there are a GPU, a backend, and sparse kernels for
            the file's precision.
        timing: How long to time each engine.
        seed: Seed of the timed images and of the bootstrap.
        progress: Called for every stage.
        say: Called with what the engines cost, before they are built.
        gpu: The GPU to estimate for, a key of :data:`~deploy.roofline.GPUS`. It rules out a measurement.
        precision: ``fp16`` or ``int8`` to estimate for. It rules out a measurement.

    Returns:
        The prediction, and how it was made, for people.

    Raises:
        InputError: The file or the shapes are wrong; or ``measure`` is true without a GPU, for an FP32 file, or with
            ``gpu`` or ``precision``.
        MissingDependencyError: ``measure`` is true, and TensorRT or PyCUDA is not installed.
    """
    file = OnnxFile(model)
    if gpu or precision:
        if measure:
            raise InputError("`measure` takes neither `gpu` nor `precision`", "Leave them out, or use `estimate`.")
        return predict(file, shapes, gpu, precision), "estimated, as asked"
    if measure is None and not file.graph.has_sparse_kernels:
        return predict(file, shapes), "estimated, since FP32 has no sparse kernels that could be timed"
    backend, why = find_runtime({None: "auto", True: "tensorrt", False: "onnxruntime"}[measure])
    if backend is None:
        return predict(file, shapes), f"estimated, {why}"
    settings = EngineSettings(build=BuildSettings(shapes=shapes), timing=timing, seed=seed)
    return try_pruning(file, settings, progress, say), f"measured with {why}"
