"""Builds, times and explains the engines of the three arms."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ContextManager, Dict, Optional, Tuple, Union

import numpy.typing as npt

from deploy.benchmark.arms import Arms, open_arms
from deploy.builder import BuildResult, BuildSettings
from deploy.explain import Explanation, evidence_of_build, explain
from deploy.graph import OnnxFile
from deploy.machine import describe_environment, pci_bus_id
from deploy.measure import (
    EngineTimer,
    GPUMonitor,
    LatencyReport,
    Ratio,
    Regime,
    TimingSettings,
    agree_on_regime,
    compare_layer_times,
    measure_latency,
)
from sparsegpt_core.progress import Progress, silent

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

    builds: Mapping[str, Sequence[BuildResult]]
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

    @property
    def runtime(self) -> str:
        """The backend, its version and the GPU."""
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
    """Build and time the arms' engines, without measuring their accuracy.

    Args:
        dense: The dense ONNX file.
        sparse: Its pruned version.
        images: The images of one inference, (N, C, H, W).
        input_name: The name of the graphs' input.
        settings: How to build and time; the batch is the number of images.
        progress: Receives the stages ``engines``, ``latency`` and ``layers``.

    Raises:
        InputError: A file, the images or a setting does not fit, or the GPU fails.
        MissingDependencyError: No backend, Polygraphy or PyCUDA is installed.

    Example:
        >>> import numpy as np
        >>> images = np.zeros((8, 3, 224, 224), np.float32)
        >>> found = measure_engines(Path("dense.onnx"), Path("sparse.onnx"), images, "input")  # doctest: +SKIP
        >>> found.speedup["A_to_C"].ratio  # doctest: +SKIP
        1.12
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
    """Open the arms with engines for the images' shape, unless the settings name other shapes."""
    shapes = settings.build.shapes or {input_name: (images.shape, images.shape, images.shape)}
    return open_arms(dense, sparse, replace(settings.build, shapes=shapes), settings.rebuilds, settings.plans, progress)


def measure_open_arms(
    arms: Arms, sparse: OnnxFile, images: npt.NDArray[Any], settings: EngineSettings, progress: Progress
) -> ArmMeasurements:
    """Time the open engines of all arms, and explain the first ones of B and C."""
    latency, gpu = _time(arms, images, settings, progress)
    engines = {arm: arms.sessions[arm][0] for arm in ("B", "C")}
    layers = compare_layer_times(engines, images, progress)
    evidence = {
        arm: evidence_of_build(arms.builds[arm][0], session.engine, sparse.graph.has_sparse_kernels, layers[arm])
        for arm, session in engines.items()
    }
    speedup = {"A_to_C": latency.speedup("A", "C"), "B_to_C": latency.speedup("B", "C")}
    return ArmMeasurements(
        builds=arms.builds,
        latency=latency,
        speedup=speedup,
        layer_times={arm: found.medians_ms for arm, found in layers.items()},
        layer_noise={arm: found.noise for arm, found in layers.items()},
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
        agree_on_regime([timer for group in timers.values() for timer in group])
        with GPUMonitor(pci_bus_id()) as monitor:
            latency = measure_latency(timers, settings.timing, settings.seed, progress)
        return latency, monitor.report


def _warnings(arms: Arms, latency: LatencyReport, gpu: Optional[Mapping[str, Any]]) -> Iterator[str]:
    yield from dict.fromkeys(text for group in arms.builds.values() for build in group for text in build.warnings)
    if latency.regime.note:
        yield latency.regime.note
    if latency.unsettled:
        yield f"not warm when timing began: {', '.join(latency.unsettled)}"
    throttled = set((gpu or {}).get("throttled") or ()) - {"applications_clocks_setting"}  # the user locked the clocks
    if throttled:
        yield f"the GPU's clocks were held back: {', '.join(sorted(throttled))}"
