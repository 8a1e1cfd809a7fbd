"""Build, time and explain the arms' engines."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ContextManager, Dict, Optional, Tuple, Union

import numpy as np
import numpy.typing as npt

from deploy.benchmark.arms import Arms, open_arms
from deploy.builder import BuildResult, BuildSettings
from deploy.explain import Explanation, evidence_of_build, explain
from deploy.graph import OnnxFile
from deploy.machine import describe_environment, pci_bus_id
from deploy.measure import EngineTimer, GPUMonitor, LatencyReport, Ratio, Regime, measure_latency, measure_layer_times
from sparsegpt_core.progress import Progress, silent

__all__ = ["ArmMeasurements", "EngineSettings", "measure_engines"]


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
class ArmMeasurements:
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


def measure_engines(
    dense: Union[Path, OnnxFile],
    sparse: Union[Path, OnnxFile],
    images: npt.NDArray[Any],
    input_name: str,
    settings: Optional[EngineSettings] = None,
    progress: Progress = silent,
) -> ArmMeasurements:
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
    settings, dense, sparse = settings or EngineSettings(), OnnxFile.of(dense), OnnxFile.of(sparse)
    with open_timed_arms(dense, sparse, images, input_name, settings, progress) as arms:
        return measure_open_arms(arms, sparse, images, settings, progress)


def open_timed_arms(
    dense: OnnxFile,
    sparse: OnnxFile,
    images: npt.NDArray[Any],
    input_name: str,
    settings: EngineSettings,
    progress: Progress,
) -> ContextManager[Arms]:
    shapes = settings.build.shapes or {input_name: (images.shape, images.shape, images.shape)}
    return open_arms(dense, sparse, replace(settings.build, shapes=shapes), settings.rebuilds, settings.plans, progress)


def measure_open_arms(
    arms: Arms, sparse: OnnxFile, images: npt.NDArray[Any], settings: EngineSettings, progress: Progress
) -> ArmMeasurements:
    latency, gpu = _time(arms, images, settings, progress)
    times, engines = {}, {arm: arms.sessions[arm][0] for arm in ("B", "C")}
    progress("layers", 0, len(engines))
    for arm, session in engines.items():
        times[arm] = {name: float(np.median(taken)) for name, taken in measure_layer_times(session, images).items()}
        progress("layers", len(times), len(engines))
    evidence = {
        arm: evidence_of_build(arms.builds[arm][0], session.engine, sparse.graph.has_sparse_kernels, times[arm])
        for arm, session in engines.items()
    }
    speedup = {"A_to_C": latency.speedup("A", "C"), "B_to_C": latency.speedup("B", "C")}
    return ArmMeasurements(
        builds=arms.builds,
        latency=latency,
        speedup=speedup,
        layer_times=times,
        explanation=explain(sparse.audit, evidence["C"], evidence["B"], speedup["A_to_C"], latency.noise, len(images)),
        gpu=gpu,
        environment=describe_environment(),
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
