"""Compare a dense with a sparse ONNX file on real data. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deploy.compare import BenchmarkResult, benchmark_onnx
from export.audit import load_model
from export.metadata import read_metadata
from sparsegpt_cli.data import DataOptions, EvaluationBatches, open_options
from sparsegpt_core.errors import DataError
from sparsegpt_core.progress import Progress, silent

__all__ = ["BenchmarkSettings", "benchmark_files"]


@dataclass(frozen=True)
class BenchmarkSettings:
    """How much to measure: evaluation images (0: all), images at a time, images per timed call, rounds."""

    eval_samples: int = 2000
    batch_size: int = 64
    latency_batch: int | None = None
    rounds: int = 20
    seed: int = 0


def benchmark_files(
    dense: Path, sparse: Path, data: DataOptions, settings: BenchmarkSettings, progress: Progress = silent
) -> BenchmarkResult:
    """Compare two files on the evaluation split, normalised as the dense file notes.

    Raises:
        DataError: The data has no evaluation split.
        InputError: A file cannot be read, or does not take the images.
    """
    opened = open_options(data, read_metadata(load_model(dense)))
    if opened.evaluation is None:
        raise DataError(f"{opened.spec} has no evaluation split", "Name one with --eval-data.")
    return benchmark_onnx(
        dense,
        sparse,
        EvaluationBatches(opened.evaluation, settings.eval_samples, settings.batch_size, settings.seed),
        latency_batch=settings.latency_batch,
        rounds=settings.rounds,
        seed=settings.seed,
        progress=progress,
    )
