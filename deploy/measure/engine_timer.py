"""Times an engine on the GPU: by either clock, with or without transfers and CUDA graphs, on several streams."""

from __future__ import annotations

__all__ = ["EngineTimer"]

import contextlib
import time
from dataclasses import replace
from types import TracebackType
from typing import Any, Callable, List, Optional, Tuple, Type

import numpy.typing as npt

from deploy.machine import connect, gpu_errors
from deploy.measure.timing import Regime
from deploy.sessions import CudaGraph, InferenceStream, TensorRTSession
from sparsegpt_core.errors import SparseGPTError

_NS_PER_MS = 1e6


class EngineTimer:
    """Times a TensorRT engine. Close it before its session, or use it in a ``with``.

    Where no CUDA graph can be captured, it times without, and its regime's note says why.

    Args:
        session: Whose engine is timed.
        images: One inference's; they stay on the GPU where transfers are not timed.
        regime: How; its batch is taken from the images.

    Raises:
        InputError: The images do not fit the engine, or the GPU fails.
        ModelError: TensorRT refuses to run.
    """

    def __init__(self, session: TensorRTSession, images: npt.NDArray[Any], regime: Regime) -> None:
        images, self._cuda, self._name = session.cast(images), connect(), session.name
        self.regime = replace(regime, batch=len(images))
        with contextlib.ExitStack() as cleanup:
            self._streams: List[InferenceStream] = []
            for _ in range(regime.streams):
                self._streams.append(session.new_stream())
                cleanup.callback(self._streams[-1].close)
            with gpu_errors(self._cuda, f"preparing to time {self._name}"):
                for stream in self._streams:
                    stream.resize(images.shape)
                    stream.fill(images)
                    stream.upload()
                    stream.synchronize()
                self._works = self._launchers(cleanup)
                self._start, self._end = self._cuda.Event(), self._cuda.Event()
                self._done = [self._cuda.Event() for _ in self._streams[1:]]
            self._cleanup = cleanup.pop_all()

    def __enter__(self) -> EngineTimer:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    def __call__(self, iterations: int) -> Tuple[float, ...]:
        """Return that many samples, in milliseconds; the GPU is idle before each.

        Raises:
            InputError: The GPU fails.
            ModelError: TensorRT refuses to run.
        """
        sample = self._by_gpu if self.regime.clock == "gpu" else self._by_host
        with gpu_errors(self._cuda, f"timing {self._name}"):
            return tuple([sample() for _ in range(iterations)])

    def close(self) -> None:
        """Free the graphs, streams and memory; a second call does nothing."""
        self._cleanup.close()

    def _launchers(self, cleanup: contextlib.ExitStack) -> List[Callable[[], None]]:
        """Return what puts one inference on each CUDA stream."""
        works = [_with_transfers(stream) if self.regime.transfers else stream.execute for stream in self._streams]
        if not self.regime.cuda_graph:
            return works
        graphs: List[CudaGraph] = []
        try:
            for stream, work in zip(self._streams, works):
                graphs.append(stream.capture(work))
                cleanup.callback(graphs[-1].close)
        except SparseGPTError as error:
            self.regime = replace(self.regime, cuda_graph=False, note=f"No CUDA graph: {error}.")
            return works
        return [graph.launch for graph in graphs]

    def _by_host(self) -> float:
        start = time.perf_counter_ns()
        for work in self._works:
            work()
        for stream in self._streams:
            stream.cuda_stream.synchronize()
        return (time.perf_counter_ns() - start) / _NS_PER_MS

    def _by_gpu(self) -> float:
        """Fork from the first stream and join it again, so that its two events enclose the work of all."""
        first, *others = (stream.cuda_stream for stream in self._streams)
        self._start.record(first)
        for stream in others:
            stream.wait_for_event(self._start)
        for work in self._works:
            work()
        for stream, done in zip(others, self._done):
            done.record(stream)
            first.wait_for_event(done)
        self._end.record(first)
        self._end.synchronize()
        return float(self._end.time_since(self._start))


def _with_transfers(stream: InferenceStream) -> Callable[[], None]:
    def work() -> None:
        stream.upload()
        stream.execute()
        stream.download()

    return work
