"""What one sample measures, a timer with the host's clock, and the warm-up before timing."""

from __future__ import annotations

__all__ = ["HostTimer", "Regime", "Timer", "settle"]

import time
from dataclasses import asdict, dataclass
from typing import Any, Callable, Protocol, Tuple

import numpy as np

from sparsegpt_core.errors import InputError

_NS_PER_MS = 1e6
_MAX_SETTLED_CHANGE = 0.02  # of the median from one block to the next, relative to the first of the two
_MAX_WARMUP_BLOCKS = 20  # blocks of untimed calls


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
    note: str = ""
    """Why the regime differs from the requested one; empty where it does not."""

    def __post_init__(self) -> None:
        if self.clock not in {"host", "gpu"} or self.batch < 1 or self.streams < 1:
            raise InputError(
                f"cannot time {self.streams} streams of {self.batch} images with the clock '{self.clock}'",
                "Use the clock host or gpu, at least one image and at least one of `streams`.",
            )

    @property
    def images(self) -> int:
        """The number of images in one sample."""
        return self.batch * self.streams

    def to_json(self) -> dict[str, Any]:
        """Return the fields."""
        return asdict(self)


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


def settle(timer: Timer, at_least: int) -> bool:
    """Warm up: call in blocks until the medians of two blocks in a row agree, for at most twenty blocks.

    Args:
        timer: The timer to warm up.
        at_least: Calls in a block; 0 for no warm-up.

    Returns:
        Whether the medians of the last two blocks agreed.
    """
    before = np.inf
    for _ in range(_MAX_WARMUP_BLOCKS if at_least else 0):
        median = float(np.median(timer(at_least)))
        if abs(median - before) <= _MAX_SETTLED_CHANGE * before < np.inf:
            return True
        before = median
    return at_least == 0
