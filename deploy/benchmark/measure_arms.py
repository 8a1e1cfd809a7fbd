"""Builds, times and explains the engines of the three arms."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple, Union

from deploy.benchmark.arms import Builds, build_arms, open_engines
from deploy.benchmark.cost import Cost, estimate_cost
from deploy.builder import BuildSettings
from deploy.explain import Explanation, evidence_of_build, explain
from deploy.graph import OnnxFile, Shapes, resolve_shapes
from deploy.machine import describe_environment, free_memory, pci_bus_id
from deploy.measure import (
    EngineTimer,
    GPUMonitor,
    LatencyReport,
    Ratio,
    Regime,
    TimingSettings,
    agree_on_regime,
    compare_layer_times,
    join_rebuilds,
    measure_latency,
)
from deploy.sessions import TensorRTSession, check_inputs
from sparsegpt_core.errors import InputError
from sparsegpt_core.named_inputs import Arrays
from sparsegpt_core.progress import Progress, Say, silent

__all__ = ["ArmMeasurements", "EngineSettings", "measure_engines"]


@dataclass(frozen=True)
class EngineSettings:
    """How to build and time engines."""

    build: BuildSettings = field(default_factory=BuildSettings)
    """Settings of all builds. Without ``shapes``, min, opt and max are the timed shape."""
    regime: Regime = field(default_factory=lambda: Regime("gpu", transfers=False, cuda_graph=True))
    """What one sample measures. Its batch is replaced by the number of images."""
    batches: Tuple[int, ...] = ()
    """Images in one inference; each number gets its own engines. Empty for the batch of ``shapes`` or a fixed one."""
    rebuilds: int = 3
    """Builds of each engine."""
    plans: Optional[Path] = None
    """The folder for the plans; None to keep none."""
    timing: TimingSettings = field(default_factory=TimingSettings)
    """How long to time each engine."""
    seed: int = 0
    """Seed of the bootstrap."""


@dataclass(frozen=True)
class ArmMeasurements:
    """Measurements of the arms' engines, without their accuracy."""

    builds: Builds
    """All builds of each arm."""
    latency: LatencyReport
    """Latency by arm."""
    speedup: Mapping[str, Ratio]
    """``A_to_C``: over the dense model. ``B_to_C``: of the sparse kernels alone."""
    layer_times: Mapping[str, Mapping[str, float]]
    """Median milliseconds of each engine layer, in the first engines of B and C."""
    layer_noise: Mapping[str, Mapping[str, float]]
    """The relative difference between several measurements of the same layer."""
    explanation: Explanation
    """The explanation of the first engines of B and C."""
    gpu: Optional[Mapping[str, Any]]
    """The GPU's clocks, power and temperature during timing, from ``GPUMonitor``."""
    environment: Mapping[str, Any]
    """The machine, as ``describe_environment`` returns it."""
    warnings: Tuple[str, ...]
    """Sentences about causes for doubt in the numbers."""
    cost: Cost
    """The engines and their estimated memory."""

    @property
    def runtime(self) -> str:
        """The backend, its version and the GPU."""
        build, gpu = self.builds["A"][0], self.environment["gpu"]
        return f"{build.backend} {build.backend_version} on {gpu['name'] if gpu else 'an unknown GPU'}"


def measure_engines(
    dense: Union[Path, OnnxFile],
    sparse: Union[Path, OnnxFile],
    images: Arrays,
    settings: Optional[EngineSettings] = None,
    progress: Progress = silent,
    say: Say = lambda _: None,
) -> ArmMeasurements:
    """Build and time the arms' engines, without measuring their accuracy.

    Args:
        dense: The dense ONNX file.
        sparse: Its pruned version.
        images: The images of one inference, (N, C, H, W), or all inputs.
        settings: How to build and time; the batch is the number of images.
        progress: Receives the stages ``engines``, ``latency`` and ``layers``.
        say: Called with what the engines cost, before they are built.

    Raises:
        InputError: A file, the images or a setting does not fit, or the GPU fails.
        MissingDependencyError: No backend, Polygraphy or PyCUDA is installed.

    Example:
        >>> import numpy as np
        >>> images = np.zeros((8, 3, 224, 224), np.float32)
        >>> found = measure_engines(Path("dense.onnx"), Path("sparse.onnx"), images)  # doctest: +SKIP
        >>> found.speedup["A_to_C"].ratio  # doctest: +SKIP
        1.12
    """
    settings, dense, sparse = settings or EngineSettings(), OnnxFile.of(dense), OnnxFile.of(sparse)
    cost = cost_of_engines(sparse, [images], settings)
    say(str(cost))
    with measured_arms(dense, sparse, images, settings, cost, progress) as (measured, _):
        return measured


def cost_of_engines(sparse: OnnxFile, batches: Sequence[Arrays], settings: EngineSettings) -> Cost:
    """Estimate the cost of engines for the images of each batch.

    Raises:
        InputError: A setting does not fit, or the GPU does not respond.
        MissingDependencyError: PyCUDA is not installed.
    """
    if settings.rebuilds < 1:
        raise InputError(f"cannot build engines {settings.rebuilds} times", "Set `rebuilds` to at least 1.")
    graph = sparse.graph
    profiles = [resolve_shapes(graph.inputs, _shapes(sparse, images, settings)) for images in batches]
    largest = [{name: shapes[2] for name, shapes in profile.items()} for profile in profiles]
    return estimate_cost(graph, largest, settings.rebuilds, settings.regime.streams, free_memory())


@contextlib.contextmanager
def measured_arms(
    dense: OnnxFile,
    sparse: OnnxFile,
    images: Arrays,
    settings: EngineSettings,
    cost: Cost,
    progress: Progress,
) -> Iterator[Tuple[ArmMeasurements, Dict[str, TensorRTSession]]]:
    """Build, time and explain the engines of all arms; leave the first ones open inside the ``with``.

    The engines of all rebuilds are timed in turns if they fit into the GPU's memory, else rebuild by rebuild. The arms
    of one rebuild are always timed in turns.
    """
    build = replace(settings.build, shapes=_shapes(sparse, images, settings))
    *before, last = cost.parts
    with build_arms(dense, sparse, build, settings.rebuilds, settings.plans, progress) as builds:
        monitor = GPUMonitor(pci_bus_id())
        reports: List[LatencyReport] = []
        for part in before:
            with open_engines(builds, part) as engines:
                reports.append(_time(engines, images, settings, reports, monitor, progress))
        with open_engines(builds, last) as engines:
            reports.append(_time(engines, images, settings, reports, monitor, progress))
            latency = join_rebuilds(reports[::-1])
            first = {arm: group[0] for arm, group in engines.items()}
            yield _explain(builds, first, latency, sparse, images, monitor.report, cost, progress), first


def _shapes(sparse: OnnxFile, images: Arrays, settings: EngineSettings) -> Shapes:
    """Return the shapes of the settings, else those of the images."""
    inputs = check_inputs(sparse.path.name, sparse.graph.inputs, images)
    return settings.build.shapes or {name: (values.shape,) * 3 for name, values in inputs.items()}


def _time(
    engines: Mapping[str, Sequence[TensorRTSession]],
    images: Arrays,
    settings: EngineSettings,
    earlier: Sequence[LatencyReport],
    monitor: GPUMonitor,
    progress: Progress,
) -> LatencyReport:
    """Time engines in turns, in the regime of the earlier rebuilds if there are any."""
    regime = earlier[0].regime if earlier else settings.regime
    with contextlib.ExitStack() as cleanup:
        timers = {
            arm: [cleanup.enter_context(EngineTimer(session, images, regime)) for session in group]
            for arm, group in engines.items()
        }
        agree_on_regime([timer for group in timers.values() for timer in group])
        with monitor:
            return measure_latency(timers, settings.timing, settings.seed, progress)


def _explain(
    builds: Builds,
    first: Mapping[str, TensorRTSession],
    latency: LatencyReport,
    sparse: OnnxFile,
    images: Arrays,
    gpu: Optional[Mapping[str, Any]],
    cost: Cost,
    progress: Progress,
) -> ArmMeasurements:
    """Explain the first engines of B and C."""
    engines = {arm: first[arm] for arm in ("B", "C")}
    layers = compare_layer_times(engines, images, progress)
    evidence = {
        arm: evidence_of_build(builds[arm][0], session.engine, sparse.graph.has_sparse_kernels, layers[arm])
        for arm, session in engines.items()
    }
    speedup = {"A_to_C": latency.speedup("A", "C"), "B_to_C": latency.speedup("B", "C")}
    return ArmMeasurements(
        builds=builds,
        latency=latency,
        speedup=speedup,
        layer_times={arm: found.medians_ms for arm, found in layers.items()},
        layer_noise={arm: found.noise for arm, found in layers.items()},
        explanation=explain(sparse.audit, evidence["C"], evidence["B"], speedup["A_to_C"], latency.noise, len(images)),
        gpu=gpu,
        environment=describe_environment(),
        warnings=tuple(_warnings(builds, latency, gpu)),
        cost=cost,
    )


def _warnings(builds: Builds, latency: LatencyReport, gpu: Optional[Mapping[str, Any]]) -> Iterator[str]:
    yield from dict.fromkeys(text for group in builds.values() for build in group for text in build.warnings)
    if latency.regime.note:
        yield latency.regime.note
    if latency.unsettled:
        yield f"not warm when timing began: {', '.join(latency.unsettled)}"
    throttled = set((gpu or {}).get("throttled") or ()) - {"applications_clocks_setting"}  # the user locked the clocks
    if throttled:
        yield f"the GPU's clocks were held back: {', '.join(sorted(throttled))}"
