"""Compares a dense with a sparse ONNX file on real data. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from deploy.benchmark import (
    BenchmarkResult,
    EngineSettings,
    benchmark_engines,
    benchmark_onnx,
    benchmark_tensorrt_provider,
)
from deploy.graph import OnnxFile
from deploy.measure import QUICK_TIMING, Metric, TimingSettings
from export.audit import read_metadata
from sparsegpt_cli.jobs.datasets import DataSource, EvaluationBatches, open_dataset
from sparsegpt_core.errors import DataError
from sparsegpt_core.files import check_model_metadata
from sparsegpt_core.named_inputs import InputNames
from sparsegpt_core.progress import Progress, Say, silent

__all__ = ["BenchmarkSettings", "benchmark_files"]


@dataclass(frozen=True)
class BenchmarkSettings:
    """Where and how much to measure."""

    runtime: str = "onnxruntime"
    """``onnxruntime``, ``onnxruntime-tensorrt`` or ``tensorrt``; not ``auto``, which ``find_runtime`` resolves."""
    eval_samples: int = 2000
    """Evaluation images; 0 takes all."""
    batch_size: int = 64
    """Images at a time for accuracy."""
    latency_batches: tuple[int, ...] = ()
    """Images per timed call; empty: the default of the runtime."""
    timing: TimingSettings = QUICK_TIMING
    """How long to time each engine or session."""
    seed: int = 0
    """Seed of the draw of evaluation images, of the timed images and of the bootstrap."""


def benchmark_files(
    dense: Path,
    sparse: Path,
    data: DataSource,
    settings: BenchmarkSettings,
    progress: Progress = silent,
    engines: EngineSettings | None = None,
    say: Say = lambda _: None,
    metric: Metric | None = None,
) -> BenchmarkResult:
    """Compare two files on the evaluation split, normalised as the dense file's metadata says.

    Args:
        dense: The reference.
        sparse: Its pruned version.
        data: The images to evaluate on.
        settings: Where and how much to measure.
        progress: Called for every stage.
        engines: How to build and time engines; None for the defaults.
        say: Called with the data's normalisation, and with what the engines cost before they are built.
        metric: Compared beside accuracy, or beside output errors where the outputs are no logits.

    Raises:
        DataError: The data has no evaluation split.
        InputError: A file cannot be read or does not take the images, or the GPU fails.
    """
    files = OnnxFile(dense), OnnxFile(sparse)  # each is read once
    metadata, graph = check_model_metadata(read_metadata(files[0].graph.model), dense), files[0].graph
    recorded = [each["name"] for each in metadata.get("inputs", ())]  # a single input is `input` in the graph
    names = tuple(recorded if len(recorded) == len(graph.inputs) else graph.inputs)
    opened = open_dataset(data, metadata, say, InputNames(names, len(names)))
    if opened.evaluation is None:
        raise DataError(f"{opened.spec} has no evaluation split", "Name one with --eval-data.")
    batches = EvaluationBatches(opened.evaluation, settings.eval_samples, settings.batch_size, settings.seed)
    if settings.runtime == "onnxruntime":
        return benchmark_onnx(
            *files,
            batches,
            latency_batches=settings.latency_batches,
            timing=settings.timing,
            seed=settings.seed,
            progress=progress,
            metric=metric,
        )
    compare = benchmark_engines if settings.runtime == "tensorrt" else benchmark_tensorrt_provider
    own = replace(
        engines or EngineSettings(), batches=settings.latency_batches, timing=settings.timing, seed=settings.seed
    )
    return compare(*files, batches, own, progress, say, metric)
