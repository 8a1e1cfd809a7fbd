"""Compares dense with sparse on ONNX Runtime: accuracy, and a latency that says nothing about a GPU."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Optional, Union

from deploy.benchmark.comparable import check_pair
from deploy.benchmark.result import BenchmarkResult, Timed, describe_models, quality_sentence
from deploy.benchmark.timed_images import first_images, latency_images
from deploy.graph import OnnxFile
from deploy.machine import describe_environment, require
from deploy.measure import (
    QUICK_TIMING,
    HostTimer,
    LabelledImages,
    Metric,
    TimingSettings,
    compare_versions,
    measure_latency,
)
from deploy.sessions import OnnxSession
from sparsegpt_core.progress import Progress, silent

__all__ = ["benchmark_onnx"]

_CPU_NOTE = (
    "ONNX Runtime's CPU kernels do not use 2:4 zeros, so the latency measured here says nothing about a GPU: "
    "only an engine on a GPU with sparse tensor cores can show a speed-up."
)


def benchmark_onnx(
    dense: Union[Path, OnnxFile],
    sparse: Union[Path, OnnxFile],
    batches: Iterable[LabelledImages],
    *,
    latency_batches: Sequence[int] = (),
    timing: TimingSettings = QUICK_TIMING,
    threads: Optional[int] = None,
    seed: int = 0,
    progress: Progress = silent,
    metric: Optional[Metric] = None,
) -> BenchmarkResult:
    """Compare two ONNX files on ONNX Runtime's CPU provider.

    Args:
        dense: The dense ONNX file, the reference.
        sparse: Its pruned version.
        batches: Normalised evaluation images (N, C, H, W) with labels (N) or None.
        latency_batches: Images per timed call; each number is timed. Empty for the models' fixed batch, or 1.
        timing: How long to time each version.
        threads: ONNX Runtime's threads; None for its choice.
        seed: Seed of the bootstrap, and of the groups of images behind a metric's interval.
        progress: Receives the stages ``accuracy`` (``outputs`` without logits) and ``latency``.
        metric: Compared beside accuracy, or beside output errors where the outputs are no logits.

    Raises:
        InputError: A file or the images do not fit, or the files are not the dense and the sparse version of one
            network in one precision.
        NumericsError: A model returns NaN or infinity.
        MissingDependencyError: onnxruntime is not installed.

    Example:
        >>> import numpy as np
        >>> import onnx
        >>> model = onnx.parser.parse_model('''
        ...     <ir_version: 8, opset_import: ["": 17]>
        ...     g (float[N, 1, 2, 2] x) => (float[N, 4] y) { y = Flatten(x) }''')
        >>> onnx.save(model, "dense.onnx")
        >>> images, labels = np.eye(4, dtype=np.float32).reshape(4, 1, 2, 2), np.arange(4)
        >>> result = benchmark_onnx(Path("dense.onnx"), Path("dense.onnx"), [(images, labels)])
        >>> result.accuracy.arms["sparse"].top1
        100.0
    """
    dense, sparse = OnnxFile.of(dense), OnnxFile.of(sparse)
    sessions = {"dense": OnnxSession(dense, threads), "sparse": OnnxSession(sparse, threads)}
    check_pair(dense, sparse)
    total = operator.length_hint(batches)
    first, batches = first_images(batches)
    portions = [latency_images(sessions, first, batch) for batch in latency_batches or (None,)]
    runs = {name: session.outputs for name, session in sessions.items()}
    compared = compare_versions(runs, batches, metric, seed=seed, progress=progress, total=total)
    timed = []
    for images in portions:
        latency = measure_latency(
            {name: [HostTimer(partial(run, images), len(images))] for name, run in runs.items()},
            timing,
            seed,
            progress,
        )
        ratio = replace(latency.speedup("dense", "sparse"), rebuilds=None)  # sessions are opened, not built
        speedup = {"A_to_C": None, "B_to_C": None, "dense_to_sparse": ratio}
        timed.append(Timed(latency, speedup))
    return BenchmarkResult(
        runtime=f"onnxruntime {require('onnxruntime').__version__} CPU",
        compared=compared,
        timed=timed,
        verdict=f"{quality_sentence(compared, 'sparse')} {_CPU_NOTE}",
        models=describe_models(dense, sparse),
        environment=describe_environment(),
    )
