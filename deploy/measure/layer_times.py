"""Measures the time of each layer of engines with TensorRT's profiler."""

from __future__ import annotations

__all__ = ["LayerTimes", "compare_layer_times", "measure_layer_times"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Dict, List

import numpy as np

from deploy.machine import connect, gpu_errors
from deploy.sessions import TensorRTSession
from sparsegpt_core.interrupts import defer_interrupts
from sparsegpt_core.named_inputs import Arrays
from sparsegpt_core.progress import Progress, silent

_TURNS = 2  # B C C B twice: of layers that gain nothing, one in 40 then seems to gain more than its noise


@dataclass(frozen=True)
class LayerTimes:
    """The times of an engine's layers, from several passes."""

    medians_ms: Mapping[str, float]
    """The median of each layer's passes, in milliseconds. A pass is the median of its runs."""
    noise: Mapping[str, float]
    """How far the passes lie apart, relative to ``medians_ms``."""


def compare_layer_times(
    sessions: Mapping[str, TensorRTSession], images: Arrays, progress: Progress = silent
) -> Dict[str, LayerTimes]:
    """Time the layers of several engines in turns, B C C B, so a drifting clock favours none of them.

    Args:
        sessions: The session of each engine, by the engine's name.
        images: The images of one inference, (N, C, H, W).
        progress: Receives the stage ``layers``, once per pass.

    Raises:
        InputError: The images do not fit an engine, or the GPU fails.
        ModelError: TensorRT cannot run an engine.

    Example:
        >>> found = compare_layer_times({"B": dense, "C": sparse}, images)  # doctest: +SKIP
        >>> found["B"].medians_ms["fc"], found["B"].noise["fc"]  # doctest: +SKIP
        (0.012, 0.03)
    """
    order = [*sessions, *reversed(list(sessions))] * _TURNS
    passes: Dict[str, List[Dict[str, List[float]]]] = {name: [] for name in sessions}
    for done, name in enumerate(order):
        progress("layers", done, len(order))
        passes[name].append(measure_layer_times(sessions[name], images))
    progress("layers", len(order), len(order))
    return {name: _summarise(taken) for name, taken in passes.items()}


def _summarise(passes: Sequence[Mapping[str, Sequence[float]]]) -> LayerTimes:
    medians, noise = {}, {}
    for name in passes[0]:
        times_ms = [float(np.median(taken[name])) for taken in passes]
        medians[name] = float(np.median(times_ms))
        noise[name] = (max(times_ms) - min(times_ms)) / medians[name] if medians[name] else 0.0
    return LayerTimes(medians, noise)


def measure_layer_times(
    session: TensorRTSession, images: Arrays, iterations: int = 20, warmup: int = 5
) -> Dict[str, List[float]]:
    """Time each layer.

    The profiler runs layers one by one with events between them, so their sum exceeds the engine's latency. Compare
    layer times with layer times only.

    Args:
        session: The session of the engine to profile.
        images: The images of one inference, (N, C, H, W).
        iterations: Profiled runs.
        warmup: Runs before them.

    Returns:
        Times in milliseconds, one per run, by layer name in the order of execution.

    Raises:
        InputError: The images do not fit the engine, or the GPU fails.
        ModelError: TensorRT cannot run the engine.

    Example:
        >>> measure_layer_times(session, images, iterations=3)  # doctest: +SKIP
        {'conv1 + relu1': [0.041, 0.040, 0.041], 'fc': [0.012, 0.012, 0.012]}
    """
    arrays = session.cast(images)
    run: Dict[str, float] = {}
    taken: Dict[str, List[float]] = {}
    stream = session.new_stream()
    try:
        with gpu_errors(connect(), f"profiling {session.name}"):
            stream.resize({name: values.shape for name, values in arrays.items()})
            stream.fill(arrays)
            stream.upload()
            for done in range(-warmup, iterations):
                if done == 0:
                    stream.attach(_recorder(session.backend.module, run))
                run.clear()
                with defer_interrupts():  # TensorRT drops what the profiler raises
                    stream.execute()
                    stream.synchronize()
                for name, milliseconds in run.items():
                    taken.setdefault(name, []).append(milliseconds)
    finally:
        stream.close()
    return taken


def _recorder(trt: Any, run: Dict[str, float]) -> Any:
    """Return a profiler that adds times to ``run``; fused layers can report several times under one name."""

    class Recorder(trt.IProfiler):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            run[layer_name] = run.get(layer_name, 0.0) + ms

    return Recorder()
