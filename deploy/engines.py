"""Dense against sparse on engines: three arms, timed in turns, their accuracy, and an explanation for every layer."""

from __future__ import annotations

__all__ = ["EngineSettings", "Measured", "benchmark_engines", "measure_engines"]

import contextlib
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ContextManager, Dict, List, Optional, Tuple

import numpy as np
import numpy.typing as npt

from deploy.accuracy import Batch, compare_accuracy
from deploy.arms import Arms, open_arms
from deploy.build import BuildResult
from deploy.compare import BenchmarkResult, Timed, accuracy_sentence, describe_models, latency_images, peek
from deploy.engine_timer import EngineTimer
from deploy.environment import environment
from deploy.explain import Explanation, explain
from deploy.gpu import pci_bus_id
from deploy.graph import read_graph
from deploy.latency import LatencyReport, Ratio, measure_latency
from deploy.layer_times import layer_times
from deploy.nvml import GPUMonitor
from deploy.plan_evidence import plan_evidence
from deploy.session import OnnxSession, Session
from deploy.settings import BuildSettings
from deploy.shapes import DEFAULT_BATCHES, resolve_shapes
from deploy.timing import Regime
from sparsegpt_core.errors import InputError
from sparsegpt_core.patterns import NM
from sparsegpt_core.progress import Progress, silent


@dataclass(frozen=True)
class EngineSettings:
    """How engines are built and timed.

    Args:
        build: Of every engine; without ``shapes`` there, min, opt and max are the shape that is timed.
        regime: What a sample is the time of; its batch is that of the images.
        batches: Images in an inference; none for the batch of ``shapes`` or the models' fixed one, else 8. For each
            number engines of their own are built, at their best there.
        rebuilds: How often each engine is built.
        plans: Where the plans are kept; None to keep none.
        rounds: Rounds of latency; see ``measure_latency``.
        iterations: Timed calls per engine and round.
        warmup: The least of untimed calls per engine.
        seed: Of the bootstrap.
    """

    build: BuildSettings = field(default_factory=BuildSettings)
    regime: Regime = field(default_factory=lambda: Regime("gpu", transfers=False, cuda_graph=True))
    batches: Tuple[int, ...] = ()
    rebuilds: int = 2
    plans: Optional[Path] = None
    rounds: int = 20
    iterations: int = 10
    warmup: int = 5
    seed: int = 0


@dataclass(frozen=True)
class Measured:
    """What the arms' engines gave, all but their accuracy.

    ``builds`` has every build by arm. Layers are explained, and timed (``layer_times``, in milliseconds), in the first
    engine of B and of C. ``gpu`` is what NVML told meanwhile, ``warnings`` what makes the figures doubtful.
    """

    builds: Mapping[str, Sequence[BuildResult]]
    latency: LatencyReport
    speedup: Mapping[str, Ratio]
    layer_times: Mapping[str, Mapping[str, float]]
    explanation: Explanation
    gpu: Optional[Mapping[str, Any]]
    environment: Mapping[str, Any]
    warnings: Tuple[str, ...]

    @property
    def runtime(self) -> str:
        """Who ran the engines, and where."""
        build, gpu = self.builds["A"][0], self.environment["gpu"]
        return f"{build.backend} {build.backend_version} on {gpu['name'] if gpu else 'an unknown GPU'}"


def benchmark_engines(
    dense: Path,
    sparse: Path,
    batches: Iterable[Batch],
    settings: Optional[EngineSettings] = None,
    progress: Progress = silent,
) -> BenchmarkResult:
    """Compare two ONNX files as engines, and their accuracy also with ONNX Runtime.

    Args:
        dense: The reference.
        sparse: Its pruned version.
        batches: Evaluation images (N, C, H, W), normalised, with labels (N) or None.
        settings: How engines are built and timed.
        progress: Told of the stages ``engines``, ``latency``, ``layers`` and ``accuracy``.

    Raises:
        InputError: A file, the images or a setting does not fit, or the GPU fails.
        NumericsError: A model gives NaN or infinity.
        MissingDependencyError: onnxruntime, a backend, Polygraphy or PyCUDA is not installed.
    """
    settings = settings or EngineSettings()
    references: Dict[str, Session] = {"dense": OnnxSession(dense), "sparse": OnnxSession(sparse)}
    total = operator.length_hint(batches)
    first, batches = peek(batches)
    images, *further = _timed_images(references, first, settings)
    for session in references.values():
        session.run(images)  # a misfit shows before engines are built
    with _open(dense, sparse, images, references["dense"].input_name, settings, progress) as arms:
        measured = _measure(arms, sparse, images, settings, progress)
        sessions: Dict[str, Session] = {**references, **{arm: group[0] for arm, group in arms.sessions.items()}}
        runs = {name: session.run for name, session in sessions.items()}
        accuracy = compare_accuracy(runs, batches, progress=progress, total=total)
    timed = [measured]
    for each in further:
        plans = settings.plans and settings.plans / f"batch-{len(each)}"
        own = replace(settings, plans=plans)
        timed.append(measure_engines(dense, sparse, each, references["dense"].input_name, own, progress))
    sentence = accuracy_sentence(accuracy.arms["dense"], accuracy.arms["C"])
    return BenchmarkResult(
        runtime=measured.runtime,
        accuracy=accuracy,
        timed=[Timed(found.latency, found.speedup, found.explanation.verdict, found.warnings) for found in timed],
        verdict=f"{sentence} On engines: {measured.explanation.verdict}",
        models=describe_models(dense, sparse),
        environment=measured.environment,
        explanation=measured.explanation,
        layer_times=measured.layer_times,
        engines={arm: [_describe(build, settings.plans) for build in group] for arm, group in measured.builds.items()},
        gpu=measured.gpu,
    )


def measure_engines(
    dense: Path,
    sparse: Path,
    images: npt.NDArray[Any],
    input_name: str,
    settings: Optional[EngineSettings] = None,
    progress: Progress = silent,
) -> Measured:
    """Build and time the arms' engines, without a look at their accuracy.

    Args:
        dense: The dense ONNX file.
        sparse: Its pruned version.
        images: One inference's, (N, C, H, W).
        input_name: The graphs' name for them.
        settings: How engines are built and timed; its batch is that of the images.
        progress: Told of the stages ``engines``, ``latency`` and ``layers``.

    Raises:
        InputError: A file, the images or a setting does not fit, or the GPU fails.
        MissingDependencyError: A backend, Polygraphy or PyCUDA is not installed.
    """
    settings = settings or EngineSettings()
    with _open(dense, sparse, images, input_name, settings, progress) as arms:
        return _measure(arms, sparse, images, settings, progress)


def _timed_images(
    references: Mapping[str, Session], first: npt.NDArray[Any], settings: EngineSettings
) -> List[npt.NDArray[Any]]:
    """Take images of the shapes that the engines are built to be best at."""
    shapes, session = settings.build.shapes, references["dense"]
    batches: Sequence[Optional[int]] = settings.batches or (None,)
    if shapes is None:
        return [latency_images(references, first, batch, DEFAULT_BATCHES[1]) for batch in batches]
    if len(batches) > 1:
        raise InputError("engines of given shapes are timed at one batch, their opt shape's", "Leave --shapes out.")
    _, best, _ = resolve_shapes({session.input_name: session.input_shape}, shapes)[session.input_name]
    images = latency_images(references, first, batches[0] or best[0])
    if images.shape != best:
        raise InputError(
            f"images of shape {images.shape} are not the opt shape {best}",
            "An engine is timed at its opt shape: let --shapes and --batch agree, and fit the data.",
        )
    return [images]


def _open(
    dense: Path, sparse: Path, images: npt.NDArray[Any], input_name: str, settings: EngineSettings, progress: Progress
) -> ContextManager[Arms]:
    shapes = settings.build.shapes or {input_name: (images.shape, images.shape, images.shape)}
    return open_arms(dense, sparse, replace(settings.build, shapes=shapes), settings.rebuilds, settings.plans, progress)


def _measure(
    arms: Arms, sparse: Path, images: npt.NDArray[Any], settings: EngineSettings, progress: Progress
) -> Measured:
    from export.audit import audit_model  # loads onnx

    latency, gpu = _time(arms, images, settings, progress)
    times, engines = {}, {arm: arms.sessions[arm][0] for arm in ("B", "C")}
    progress("layers", 0, len(engines))
    for arm, session in engines.items():
        times[arm] = {name: float(np.median(taken)) for name, taken in layer_times(session, images).items()}
        progress("layers", len(times), len(engines))
    graph = read_graph(sparse)
    evidence = {arm: plan_evidence(arms.builds[arm][0].plan, graph.has_sparse_kernels, times[arm]) for arm in engines}
    speedup = {"A_to_C": latency.speedup("A", "C"), "B_to_C": latency.speedup("B", "C")}
    audit = audit_model(graph.model, NM(2, 4))
    return Measured(
        builds=arms.builds,
        latency=latency,
        speedup=speedup,
        layer_times=times,
        explanation=explain(audit, evidence["C"], evidence["B"], speedup["A_to_C"], latency.noise, len(images)),
        gpu=gpu,
        environment=environment(),
        warnings=tuple(_warnings(arms, latency, gpu)),
    )


def _time(
    arms: Arms, images: npt.NDArray[Any], settings: EngineSettings, progress: Progress
) -> Tuple[LatencyReport, Optional[Dict[str, Any]]]:
    with contextlib.ExitStack() as cleanup:
        timers = {
            arm: [cleanup.enter_context(EngineTimer(session, images, settings.regime)) for session in group]
            for arm, group in arms.sessions.items()
        }
        with GPUMonitor(pci_bus_id()) as monitor:
            latency = measure_latency(
                timers,
                rounds=settings.rounds,
                iterations=settings.iterations,
                warmup=settings.warmup,
                seed=settings.seed,
                progress=progress,
            )
        return latency, monitor.report


def _warnings(arms: Arms, latency: LatencyReport, gpu: Optional[Mapping[str, Any]]) -> Iterator[str]:
    yield from dict.fromkeys(text for group in arms.builds.values() for build in group for text in build.warnings)
    if latency.regime.note:
        yield latency.regime.note
    if latency.unsettled:
        yield f"not warm when timing began: {', '.join(latency.unsettled)}"
    throttled = set((gpu or {}).get("throttled") or ()) - {"applications_clocks_setting"}  # clocks locked by hand
    if throttled:
        yield f"the GPU's clocks were held back: {', '.join(sorted(throttled))}"


def _describe(build: BuildResult, plans: Optional[Path]) -> Dict[str, Any]:
    fields = ("sha256", "bytes", "seconds", "eligible_layers", "chosen_layers")
    return {"plan": str(build.plan) if plans else None, **{name: getattr(build, name) for name in fields}}
