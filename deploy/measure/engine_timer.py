"""Times engines on the GPU: with either clock, with or without transfers and CUDA graphs, on several streams."""

from __future__ import annotations

__all__ = ["EngineTimer", "agree_on_regime"]

import contextlib
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType
from typing import Callable, List, Optional, Tuple, Type

from deploy.machine import connect, gpu_errors
from deploy.measure.timing import Regime
from deploy.sessions import CudaGraph, InferenceStream, TensorRTSession
from sparsegpt_core.errors import SparseGPTError
from sparsegpt_core.named_inputs import Arrays

_NS_PER_MS = 1e6
_SAMPLE_MS = 1.0  # the least duration of one sample of the GPU's clock
_MIN_INFERENCES = 2  # in one sample of the GPU's clock
_EVENT_MS = 5e-4  # the resolution of a CUDA event
_HOST_BOUND = "Without a CUDA graph the host launches every kernel, so a small engine runs at the host's speed."


class EngineTimer:
    """Times a TensorRT engine. Close it before its session, or use it in a ``with``.

    With the GPU's clock one sample is the mean of several inferences, about a millisecond in all, which start while
    the GPU is still busy with another one. The time that a launch takes to reach an idle GPU is then no part of it.

    If a CUDA graph cannot be captured, the timer runs without one, and ``regime.note`` says why.

    Args:
        session: The session of the engine to time.
        images: The images of one inference (N, C, H, W), or all inputs. Without transfers they stay on the GPU.
        regime: How to time. Its batch is replaced by the number of images. With the GPU's clock, 1 inference in a
            sample stands for as many as take a millisecond.

    Raises:
        InputError: The images do not fit the engine, or the GPU fails.
        ModelError: TensorRT cannot run the engine.

    Example:
        >>> with EngineTimer(session, images, Regime("gpu", transfers=False)) as timer:  # doctest: +SKIP
        ...     samples_ms = timer(10)
    """

    def __init__(self, session: TensorRTSession, images: Arrays, regime: Regime) -> None:
        arrays, self._cuda, self._name = session.cast(images), connect(), session.name
        self.regime = replace(regime, batch=len(images))
        with contextlib.ExitStack() as cleanup:
            self._streams: List[InferenceStream] = []
            for _ in range(regime.streams):
                self._streams.append(session.new_stream())
                cleanup.callback(self._streams[-1].close)
            with gpu_errors(self._cuda, f"preparing to time {self._name}"):
                for stream in self._streams:
                    stream.resize({name: values.shape for name, values in arrays.items()})
                    stream.fill(arrays)
                    stream.upload()
                    stream.synchronize()
                self._plain = [_with_transfers(each) if regime.transfers else each.execute for each in self._streams]
                self._graphs = self._capture(cleanup) if regime.cuda_graph else []
                self._start, self._end = self._cuda.Event(), self._cuda.Event()
                self._done = [self._cuda.Event() for _ in self._streams[1:]]
                if regime.clock == "gpu" and regime.inferences == 1:
                    self.regime = self._fill_samples()
            self._cleanup = cleanup.pop_all()

    def __enter__(self) -> EngineTimer:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    def __call__(self, iterations: int) -> Tuple[float, ...]:
        """Return that many samples in milliseconds.

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

    @property
    def _works(self) -> List[Callable[[], None]]:
        """One function per stream that puts an inference on it."""
        return [graph.launch for graph in self._graphs] if self.regime.cuda_graph else self._plain

    def _capture(self, cleanup: contextlib.ExitStack) -> List[CudaGraph]:
        """Return one graph per stream; none, and a note in the regime, if one cannot be captured."""
        graphs: List[CudaGraph] = []
        try:
            for stream, work in zip(self._streams, self._plain):
                graphs.append(stream.capture(work))
                cleanup.callback(graphs[-1].close)
        except SparseGPTError as error:
            self.regime = replace(self.regime, cuda_graph=False, note=f"No CUDA graph of {self._name}: {error}.")
            return []
        return graphs

    def _fill_samples(self) -> Regime:
        """Return the regime with as many inferences in a sample as take about a millisecond."""
        if not self.regime.cuda_graph:
            self.regime = replace(self.regime, note=f"{self.regime.note} {_HOST_BOUND}".lstrip())
        self.regime = replace(self.regime, inferences=_MIN_INFERENCES)
        self._by_gpu()  # the first inferences may be slow
        inference_ms = max(self._by_gpu(), _EVENT_MS)
        return replace(self.regime, inferences=max(_MIN_INFERENCES, math.ceil(_SAMPLE_MS / inference_ms)))

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
        works, inferences = self._works, self.regime.inferences
        works[0]()  # untimed: the GPU is busy while the host puts the event and the timed work on the stream
        self._start.record(first)
        for stream in others:
            stream.wait_for_event(self._start)
        for work in works * inferences:
            work()
        for stream, done in zip(others, self._done):
            done.record(stream)
            first.wait_for_event(done)
        self._end.record(first)
        self._end.synchronize()
        return float(self._end.time_since(self._start)) / inferences


def agree_on_regime(timers: Sequence[EngineTimer]) -> None:
    """Give timers the same regime: a CUDA graph if all have one, and the most inferences in a sample.

    Args:
        timers: Timers that were made with the same regime and number of images.

    Example:
        >>> agree_on_regime([dense_timer, sparse_timer])  # doctest: +SKIP
    """
    without = [timer.regime for timer in timers if not timer.regime.cuda_graph]
    inferences = max(timer.regime.inferences for timer in timers)
    shared = replace((without or [timers[0].regime])[0], inferences=inferences)
    for timer in timers:
        timer.regime = shared


def _with_transfers(stream: InferenceStream) -> Callable[[], None]:
    def work() -> None:
        stream.upload()
        stream.execute()
        stream.download()

    return work
