"""Measures the speed-up of 2:4 from a dense ONNX model, on engines of a temporary copy pruned by magnitude."""

from __future__ import annotations

__all__ = ["MeasuredPrediction", "try_pruning"]

import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Dict, Optional, Tuple, Union

from deploy.benchmark import ArmMeasurements, EngineSettings, measure_engines
from deploy.graph import OnnxFile, random_inputs, resolve_shapes
from deploy.machine import require
from deploy.predict.pruned_copy import magnitude_copy
from sparsegpt_core.errors import InputError
from sparsegpt_core.progress import Progress, Say, silent

_NOTE = "Measured on a temporary copy pruned by magnitude: its outputs are wrong, its speed is that of any 2:4 model."


@dataclass(frozen=True)
class MeasuredPrediction:
    """The measured prediction for a whole model."""

    model: str
    """The file's path."""
    shapes: Mapping[str, Tuple[int, ...]]
    """The timed shape of each input."""
    measured: ArmMeasurements
    """Measurements of the engines."""

    @property
    def verdict(self) -> str:
        """The result in a few sentences."""
        return f"{self.measured.explanation.verdict} {_NOTE}"

    def to_json(self) -> Dict[str, Any]:
        """Return the content of ``predict.json``, which ``read_profile`` can read."""
        measured, latency = self.measured, self.measured.latency.to_json()
        return {
            "estimate": False,
            "note": _NOTE,
            "model": self.model,
            "shapes": self.shapes,
            **measured.explanation.to_json(),
            "runtime": measured.runtime,
            "latency": latency["arms"],
            "latency_regime": latency["regime"],
            "speedup": {name: asdict(ratio) for name, ratio in measured.speedup.items()},
            "gpu": measured.gpu,
            "cost": measured.cost.to_json(),
            "environment": measured.environment,
            "warnings": list(measured.warnings),
            "verdict": self.verdict,
        }


def try_pruning(
    model: Union[Path, OnnxFile],
    settings: Optional[EngineSettings] = None,
    progress: Progress = silent,
    say: Say = lambda _: None,
) -> MeasuredPrediction:
    """Prune a copy by magnitude, and time its engines and the dense model's on random images.

    Args:
        model: A dense ONNX model in FP16 or INT8.
        settings: How to build and time engines. Without ``shapes``, a dynamic batch is 8 images.
        progress: Receives the stages ``engines``, ``latency`` and ``layers``.
        say: Called with what the engines cost, before they are built.

    Raises:
        InputError: The file is missing or is not such a model, a setting does not fit it, or the GPU fails.
        MissingDependencyError: onnx, a backend, Polygraphy or PyCUDA is not installed.

    Example:
        >>> try_pruning(Path("dense.onnx")).measured.speedup["A_to_C"].ratio  # doctest: +SKIP
        1.12
    """
    settings, file = settings or EngineSettings(), OnnxFile.of(model)
    graph = file.graph
    from export.audit import load_model  # after the check that onnx is installed

    if not graph.has_sparse_kernels:
        raise InputError(
            f"{file.path} is FP32, which has no sparse kernels", "Give the FP16 or INT8 file, or use `estimate`."
        )
    shapes = {name: best for name, (_, best, _) in resolve_shapes(graph.inputs, settings.build.shapes).items()}
    images = random_inputs(shapes, graph.input_types, settings.seed)
    with tempfile.TemporaryDirectory(prefix="sparsegpt-trt.") as folder:
        copy = Path(folder, "sparse.onnx")
        pruned = magnitude_copy(load_model(file.path))
        require("onnx").save(pruned, str(copy), save_as_external_data=True)  # of any size
        measured = measure_engines(file, copy, images, settings, progress, say)
    return MeasuredPrediction(str(file.path), shapes, measured)
