"""What 2:4 gains, from a dense ONNX model alone: measured on engines of a copy that is pruned in a moment."""

from __future__ import annotations

__all__ = ["MeasuredPrediction", "try_pruning"]

import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Dict, Optional, Tuple

import numpy as np

from deploy.benchmark import ArmMeasurements, EngineSettings, measure_engines
from deploy.graph import OnnxFile, resolve_shapes
from deploy.machine import require
from deploy.predict.throwaway_pruning import magnitude_copy
from sparsegpt_core.errors import InputError
from sparsegpt_core.progress import Progress, silent

_NOTE = "ArmMeasurements on a throw-away copy pruned by magnitude: its outputs are worthless, its speed is that of any."


@dataclass(frozen=True)
class MeasuredPrediction:
    """What was measured, for a whole model at ``shapes``."""

    model: str
    shapes: Mapping[str, Tuple[int, ...]]
    measured: ArmMeasurements

    @property
    def verdict(self) -> str:
        """One line for the screen."""
        return f"{self.measured.explanation.verdict} {_NOTE}"

    def to_json(self) -> Dict[str, Any]:
        """Return what ``predict.json`` holds: the explanation, of which ``layers_without_gain`` reads the layers."""
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
            "environment": measured.environment,
            "warnings": list(measured.warnings),
            "verdict": self.verdict,
        }


def try_pruning(
    path: Path, settings: Optional[EngineSettings] = None, progress: Progress = silent
) -> MeasuredPrediction:
    """Prune a copy by magnitude and time its engines beside the dense one's, on noise.

    Args:
        path: A dense ONNX model with one image input, in FP16 or INT8.
        settings: How engines are built and timed; without ``shapes`` batches of 8 where the batch is dynamic.
        progress: Told of every stage.

    Raises:
        InputError: The file is missing or no such model, a setting does not fit it, or the GPU fails.
        MissingDependencyError: onnx, a backend, Polygraphy or PyCUDA is not installed.
    """
    settings, file = settings or EngineSettings(), OnnxFile(path)
    graph = file.graph
    if not graph.has_sparse_kernels:
        raise InputError(
            f"{path} is FP32, for which there are no sparse kernels", "Give the FP16 or INT8 file, or --estimate."
        )
    if len(graph.inputs) != 1:
        raise InputError(f"{path} has {len(graph.inputs)} inputs", "Engines of one input are timed; use --estimate.")
    ((name, (_, best, _)),) = resolve_shapes(graph.inputs, settings.build.shapes).items()
    images = np.random.default_rng(settings.seed).standard_normal(best, np.float32)
    with tempfile.TemporaryDirectory(prefix="sparsegpt-trt.") as folder:
        copy = Path(folder, "sparse.onnx")
        require("onnx").save(magnitude_copy(graph.model), str(copy), save_as_external_data=True)  # of any size
        measured = measure_engines(file, copy, images, name, settings, progress)
    return MeasuredPrediction(str(path), {name: best}, measured)
