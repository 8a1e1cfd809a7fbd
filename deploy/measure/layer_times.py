"""How long each layer of an engine takes, as TensorRT's own profiler reports it."""

from __future__ import annotations

__all__ = ["measure_layer_times"]

from typing import Any, Dict, List

import numpy.typing as npt

from deploy.machine import connect, gpu_errors
from deploy.sessions import TensorRTSession


def measure_layer_times(
    session: TensorRTSession, images: npt.NDArray[Any], iterations: int = 20, warmup: int = 5
) -> Dict[str, List[float]]:
    """Time every layer.

    Profiled layers run one by one, with events between them, so their sum is more than the engine's latency: compare
    layers with layers only.

    Args:
        session: Whose engine is profiled.
        images: One inference's, (N, C, H, W).
        iterations: Profiled runs.
        warmup: Runs before them.

    Returns:
        By the layer's name, in the order of execution, its time in each run, in milliseconds.

    Raises:
        InputError: The images do not fit the engine, or the GPU fails.
        ModelError: TensorRT refuses to run.
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
                stream.execute()
                stream.synchronize()
                for name, milliseconds in run.items():
                    taken.setdefault(name, []).append(milliseconds)
    finally:
        stream.close()
    return taken


def _recorder(trt: Any, run: Dict[str, float]) -> Any:
    """Make a profiler that adds to ``run``, since fused layers can report several times under one name."""

    class Recorder(trt.IProfiler):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            run[layer_name] = run.get(layer_name, 0.0) + ms

    return Recorder()
