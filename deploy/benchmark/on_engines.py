"""Compares dense with sparse on engines: latency of three arms, accuracy, and an explanation for each layer."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, List, Optional, Union

from deploy.benchmark.comparable import check_pair, check_sparse_kernels
from deploy.benchmark.measure_arms import EngineSettings, cost_of_engines, measured_arms
from deploy.benchmark.result import BenchmarkResult, Timed, describe_models, quality_sentence
from deploy.benchmark.timed_images import first_images, latency_images
from deploy.builder import BuildResult
from deploy.graph import DEFAULT_BATCHES, OnnxFile, resolve_shapes
from deploy.measure import LabelledImages, Metric, compare_versions
from deploy.sessions import OnnxSession, Session, check_inputs
from sparsegpt_core.errors import InputError
from sparsegpt_core.named_inputs import Arrays
from sparsegpt_core.progress import Progress, Say, silent

__all__ = ["benchmark_engines"]


def benchmark_engines(
    dense: Union[Path, OnnxFile],
    sparse: Union[Path, OnnxFile],
    batches: Iterable[LabelledImages],
    settings: Optional[EngineSettings] = None,
    progress: Progress = silent,
    say: Say = lambda _: None,
    metric: Optional[Metric] = None,
) -> BenchmarkResult:
    """Compare two ONNX files as engines. Accuracy is also measured with ONNX Runtime.

    Args:
        dense: The dense ONNX file, the reference.
        sparse: Its pruned version.
        batches: Normalised evaluation images (N, C, H, W) with labels (N) or None.
        settings: How to build and time engines.
        progress: Receives the stages ``engines``, ``latency``, ``layers`` and ``accuracy``.
        say: Called with what the engines cost, before they are built.
        metric: Compared beside accuracy, or beside output errors where the outputs are no logits.

    Raises:
        InputError: A file, the images or a setting does not fit, the files are FP32 or not the dense and the sparse
            version of one network in one precision, or the GPU fails.
        NumericsError: A model returns NaN or infinity.
        MissingDependencyError: onnxruntime, a backend, Polygraphy or PyCUDA is not installed.

    Example:
        >>> result = benchmark_engines(Path("dense.onnx"), Path("sparse.onnx"), batches)  # doctest: +SKIP
        >>> result.speedup["A_to_C"]  # doctest: +SKIP
        Ratio(ratio=1.12, low=1.10, high=1.14)
    """
    settings, dense, sparse = settings or EngineSettings(), OnnxFile.of(dense), OnnxFile.of(sparse)
    references: Dict[str, Session] = {"dense": OnnxSession(dense), "sparse": OnnxSession(sparse)}
    check_pair(dense, sparse)
    check_sparse_kernels(dense, sparse)
    total = operator.length_hint(batches)
    first, batches = first_images(batches)
    images, *further = portions = _timed_images(references, first, settings)
    for session in references.values():
        session.outputs(images)  # images that do not fit fail before engines are built
    cost = cost_of_engines(sparse, portions, settings)
    say(str(cost))
    with measured_arms(dense, sparse, images, settings, cost, progress) as (measured, engines):
        sessions: Dict[str, Session] = {**references, **engines}
        runs = {name: session.outputs for name, session in sessions.items()}
        compared = compare_versions(runs, batches, metric, seed=settings.seed, progress=progress, total=total)
    timed = [measured]
    for each in further:
        plans = settings.plans and settings.plans / f"batch-{len(each)}"
        own = replace(settings, plans=plans)
        with measured_arms(dense, sparse, each, own, cost, progress) as (found, _):
            timed.append(found)
    sentence = quality_sentence(compared, "C")
    return BenchmarkResult(
        runtime=measured.runtime,
        compared=compared,
        timed=[Timed(found.latency, found.speedup, found.explanation.verdict, found.warnings) for found in timed],
        verdict=f"{sentence} On engines: {measured.explanation.verdict}",
        models=describe_models(dense, sparse),
        environment=measured.environment,
        explanation=measured.explanation,
        layer_times=measured.layer_times,
        layer_noise=measured.layer_noise,
        engines={arm: [_describe(build, settings.plans) for build in group] for arm, group in measured.builds.items()},
        gpu=measured.gpu,
        cost=cost,
    )


def _timed_images(references: Mapping[str, Session], first: Arrays, settings: EngineSettings) -> List[Arrays]:
    """Return images of the opt shape of each batch's engines."""
    shapes, session = settings.build.shapes, references["dense"]
    batches: Sequence[Optional[int]] = settings.batches or (None,)
    if shapes is None:
        return [latency_images(references, first, batch, DEFAULT_BATCHES[1]) for batch in batches]
    if len(batches) > 1:
        raise InputError("engines of given shapes are timed at one batch, their opt shape's", "Leave out `shapes`.")
    profiles = resolve_shapes(session.input_shapes, shapes)
    batch = next(iter(profiles.values()))[1][0]
    images = latency_images(references, first, batches[0] or batch)
    for name, values in check_inputs(session.name, session.input_shapes, images).items():
        if values.shape != profiles[name][1]:
            raise InputError(
                f"{'images' if len(profiles) == 1 else name} of shape {values.shape} are not the opt shape "
                f"{profiles[name][1]}",
                "An engine is timed at its opt shape. Make `shapes`, `batch` and the data agree.",
            )
    return [images]


def _describe(build: BuildResult, plans: Optional[Path]) -> Dict[str, Any]:
    fields = ("sha256", "bytes", "seconds", "eligible_layers", "chosen_layers")
    return {"plan": str(build.plan) if plans else None, **{name: getattr(build, name) for name in fields}}
