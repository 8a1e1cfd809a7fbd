"""What one sample is the time of, the host's clock, and how long to warm up."""

from __future__ import annotations

__all__ = ["HostTimer", "Regime", "Timer", "settle"]

import time
from dataclasses import asdict, dataclass
from typing import Any, Callable, Protocol, Tuple

import numpy as np

from sparsegpt_core.errors import InputError

_NS_PER_MS = 1e6
_MAX_SETTLED_CHANGE = 0.02  # two blocks whose medians are this close, relative to the first, show no warming up
_MAX_WARMUP_BLOCKS = 20


@dataclass(frozen=True)
class Regime:
    """What a sample is the time of.

    Args:
        clock: ``host``, from before the call until its result is there, or ``gpu``, between two events on its stream.
        transfers: Whether copies between the host's (page-locked) memory and the GPU's are inside.
        cuda_graph: Whether the work is launched as one CUDA graph.
        batch: Images in an inference.
        streams: Inferences at the same time, each on a stream of its own; a sample is the time of all of them.
        note: Why it is not the regime that was asked for; empty where it is.
    """

    clock: str = "host"
    transfers: bool = True
    cuda_graph: bool = False
    batch: int = 1
    streams: int = 1
    note: str = ""

    def __post_init__(self) -> None:
        if self.clock not in {"host", "gpu"} or self.batch < 1 or self.streams < 1:
            raise InputError(
                f"cannot time {self.streams} streams of {self.batch} images by the clock '{self.clock}'",
                "Use the clock host or gpu, and at least one image and one stream.",
            )

    @property
    def images(self) -> int:
        """How many images a sample is the time of."""
        return self.batch * self.streams

    def to_json(self) -> dict[str, Any]:
        """Return the fields."""
        return asdict(self)


class Timer(Protocol):
    """Something that can be timed, and in which regime it is."""

    @property
    def regime(self) -> Regime:
        """What a sample is the time of."""

    def __call__(self, iterations: int) -> Tuple[float, ...]:
        """Return that many samples, in milliseconds."""


class HostTimer:
    """Times any call by the host's clock; the call waits for its result.

    Args:
        run: What to time.
        batch: How many images it is given.
    """

    def __init__(self, run: Callable[[], object], batch: int = 1) -> None:
        self._run = run
        self.regime = Regime(batch=batch)

    def __call__(self, iterations: int) -> Tuple[float, ...]:
        """Return that many samples, in milliseconds."""
        clock, run = time.perf_counter_ns, self._run
        taken = []
        for _ in range(iterations):
            start = clock()
            run()
            taken.append((clock() - start) / _NS_PER_MS)
        return tuple(taken)


def settle(timer: Timer, at_least: int) -> bool:
    """Warm up: call in blocks until two medians in a row agree, or twenty blocks have passed.

    Args:
        timer: What to warm up.
        at_least: Calls in a block; 0 for no warming up.

    Returns:
        Whether the last two blocks agreed.
    """
    before = np.inf
    for _ in range(_MAX_WARMUP_BLOCKS if at_least else 0):
        median = float(np.median(timer(at_least)))
        if abs(median - before) <= _MAX_SETTLED_CHANGE * before < np.inf:
            return True
        before = median
    return at_least == 0
