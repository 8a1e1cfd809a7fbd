"""Measures the time of each layer of an engine with TensorRT's profiler."""

from __future__ import annotations

__all__ = ["measure_layer_times"]

from typing import Any, Dict, List

import numpy.typing as npt

from deploy.machine import connect, gpu_errors
from deploy.sessions import TensorRTSession
from sparsegpt_core.interrupts import defer_interrupts


def measure_layer_times(
    session: TensorRTSession, images: npt.NDArray[Any], iterations: int = 20, warmup: int = 5
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
    images = session.cast(images)
    run: Dict[str, float] = {}
    taken: Dict[str, List[float]] = {}
    stream = session.new_stream()
    try:
        with gpu_errors(connect(), f"profiling {session.name}"):
            stream.resize(images.shape)
            stream.fill(images)
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
