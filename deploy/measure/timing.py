"""What one sample measures, how long to time, a timer with the host's clock, and the warm-up before timing."""

from __future__ import annotations

__all__ = ["QUICK_TIMING", "HostTimer", "Regime", "Timer", "TimingSettings", "WarmUp", "warm_up"]

import math
import time
from dataclasses import asdict, dataclass
from typing import Any, Callable, Protocol, Tuple

import numpy as np

from sparsegpt_core.errors import InputError

_NS_PER_MS = 1e6
_MAX_SETTLED_CHANGE = 0.02  # of the median from one block to the next, relative to the first of the two
_WARMUP_BLOCKS = 10  # blocks of calls in a warm-up of the least time
_MAX_WARMUP_FACTOR = 4  # the longest warm-up, relative to the least
_CLOCK_S = 1e-6  # no call is shorter


@dataclass(frozen=True)
class Regime:
    """What one sample measures."""

    clock: str = "host"
    """``host``: from the call to its result. ``gpu``: between two events on the CUDA stream."""
    transfers: bool = True
    """Whether the sample includes copies between page-locked host memory and the GPU."""
    cuda_graph: bool = False
    """Whether the work is launched as one CUDA graph."""
    batch: int = 1
    """Images in one inference."""
    streams: int = 1
    """Inferences at the same time, each on its own stream; a sample is the time of all of them."""
    inferences: int = 1
    """Inferences that follow one another in each stream of a sample; the sample is their mean time."""
    note: str = ""
    """What the regime leaves to doubt, or why it differs from the requested one."""

    def __post_init__(self) -> None:
        if self.clock not in {"host", "gpu"} or min(self.batch, self.streams, self.inferences) < 1:
            raise InputError(
                f"cannot time {self.streams} streams of {self.batch} images with the clock '{self.clock}'",
                "Use the clock host or gpu, at least one image, one inference and one of `streams`.",
            )

    @property
    def images(self) -> int:
        """The number of images that one sample is the time of."""
        return self.batch * self.streams

    def to_json(self) -> dict[str, Any]:
        """Return the fields."""
        return asdict(self)


@dataclass(frozen=True)
class TimingSettings:
    """How long to time each engine or session. The times are those of trtexec (200 ms and 3 s) or longer."""

    duration_s: float = 3.0
    """Seconds of timing for each, in all rounds together. The number of calls follows from it."""
    warmup_s: float = 0.5
    """Seconds of untimed calls before the first round; up to four times as long while the times still change."""
    rounds: int = 20
    """Turns of each version."""

    def __post_init__(self) -> None:
        if self.rounds < 2 or not (0 <= self.duration_s < math.inf and 0 <= self.warmup_s < math.inf):
            raise InputError(
                f"cannot time {self.rounds} rounds for {self.duration_s:g} s after {self.warmup_s:g} s of warm-up",
                "Use at least 2 `rounds`, and a `duration` and `warmup` of 0 or more seconds.",
            )


QUICK_TIMING = TimingSettings(duration_s=0.3, warmup_s=0.05)
"""A tenth of the default: for a first look, and for CPUs."""


@dataclass(frozen=True)
class WarmUp:
    """What a warm-up found."""

    settled: bool
    """Whether the times had stopped changing; true without a warm-up."""
    call_s: float
    """Seconds of one call, as the host sees it."""


class Timer(Protocol):
    """A callable that returns time samples, and its regime."""

    @property
    def regime(self) -> Regime:
        """What one sample measures."""

    def __call__(self, iterations: int) -> Tuple[float, ...]:
        """Return that many samples in milliseconds."""


class HostTimer:
    """Times any call with the host's clock. The call must wait for its result.

    Args:
        run: The call to time.
        batch: The number of images in one call.

    Example:
        >>> len(HostTimer(lambda: sum(range(100)))(3))
        3
    """

    def __init__(self, run: Callable[[], object], batch: int = 1) -> None:
        self._run = run
        self.regime = Regime(batch=batch)

    def __call__(self, iterations: int) -> Tuple[float, ...]:
        """Return that many samples in milliseconds."""
        clock, run = time.perf_counter_ns, self._run
        taken = []
        for _ in range(iterations):
            start = clock()
            run()
            taken.append((clock() - start) / _NS_PER_MS)
        return tuple(taken)


def warm_up(timer: Timer, seconds: float) -> WarmUp:
    """Call a timer for a while, and then until the medians of two blocks agree, for at most four times as long.

    Args:
        timer: The timer to warm up.
        seconds: The least time. A GPU raises its clocks within a second. 0 for two calls.
    """
    start, median, calls = time.perf_counter(), float(timer(1)[0]), 1
    while True:
        before, begin = median, time.perf_counter()
        median = float(np.median(timer(calls)))
        end = time.perf_counter()
        call_s = (end - begin) / calls
        settled = abs(median - before) <= _MAX_SETTLED_CHANGE * before
        if end - start >= (seconds if settled else _MAX_WARMUP_FACTOR * seconds):
            return WarmUp(settled or not seconds, call_s)
        calls = max(1, math.ceil(seconds / _WARMUP_BLOCKS / max(call_s, _CLOCK_S)))
