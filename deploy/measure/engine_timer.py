"""Times an engine on the GPU: with either clock, with or without transfers and CUDA graphs, on several streams."""

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

    If a CUDA graph cannot be captured, the timer runs without one, and ``regime.note`` says why.

    Args:
        session: The session of the engine to time.
        images: The images of one inference (N, C, H, W). Without transfers they stay on the GPU.
        regime: How to time. Its batch is replaced by the number of images.

    Raises:
        InputError: The images do not fit the engine, or the GPU fails.
        ModelError: TensorRT cannot run the engine.

    Example:
        >>> with EngineTimer(session, images, Regime("gpu", transfers=False)) as timer:  # doctest: +SKIP
        ...     samples_ms = timer(10)
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
        """Return that many samples in milliseconds. The GPU is idle before each of them.

        Raises:
            InputError: The GPU fails.
            ModelError: TensorRT cannot run the engine.
        """
        sample = self._by_gpu if self.regime.clock == "gpu" else self._by_host
        with gpu_errors(self._cuda, f"timing {self._name}"):
            return tuple([sample() for _ in range(iterations)])

    def close(self) -> None:
        """Free the graphs, streams and memory. A second call does nothing."""
        self._cleanup.close()

    def _launchers(self, cleanup: contextlib.ExitStack) -> List[Callable[[], None]]:
        """Return one function per stream that puts an inference on it."""
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
        """Fork the other streams from the first and join them to it: its two events then enclose all work."""
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
