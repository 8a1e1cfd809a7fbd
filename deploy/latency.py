"""Latency of several versions of one model, interleaved, with the noise of the machine measured along."""

from __future__ import annotations

__all__ = ["ArmLatency", "LatencyReport", "Ratio", "measure_latency"]

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Tuple

import numpy as np
import numpy.typing as npt

from sparsegpt_core.errors import InputError
from sparsegpt_core.progress import Progress, silent

_RESAMPLES = 2000
_NS_PER_MS = 1e6


@dataclass(frozen=True)
class Ratio:
    """A speed-up (2 is twice as fast) and its 95 % interval."""

    ratio: float
    low: float
    high: float


@dataclass(frozen=True)
class ArmLatency:
    """Every measured time of one version, in milliseconds, one tuple per round."""

    rounds_ms: Tuple[Tuple[float, ...], ...]

    def percentile(self, percent: float) -> float:
        """Return a percentile over all rounds, in milliseconds."""
        return float(np.percentile(np.concatenate(self.rounds_ms), percent))

    @property
    def samples(self) -> int:
        """How many times were measured."""
        return sum(map(len, self.rounds_ms))

    def to_json(self) -> dict[str, Any]:
        """Return the percentiles, the number of samples, and the samples themselves."""
        percentiles = {f"p{percent}_ms": self.percentile(percent) for percent in (50, 95, 99)}
        return {**percentiles, "samples": self.samples, "rounds_ms": self.rounds_ms}


@dataclass(frozen=True)
class LatencyReport:
    """Every version's latency; ``repeat`` is the reference, measured a second time as if it were another."""

    reference: str
    arms: Mapping[str, ArmLatency]
    repeat: ArmLatency
    seed: int = 0

    @property
    def noise(self) -> float:
        """How far from 1 the reference's speed-up over itself is: differences below it are none."""
        return abs(self._ratio(self.arms[self.reference], self.repeat).ratio - 1)

    def speedup(self, before: str, after: str) -> Ratio:
        """Return how many times as fast ``after`` is as ``before``.

        The geometric mean, over rounds, of the ratio of the two medians; the interval is the percentile bootstrap
        over rounds, since samples within a round are not independent; it is a little narrow for few rounds.
        """
        return self._ratio(self.arms[before], self.arms[after])

    def to_json(self) -> dict[str, Any]:
        """Return ``{reference, arms: {name: ...}, repeat, noise}``."""
        arms = {name: arm.to_json() for name, arm in self.arms.items()}
        return {"reference": self.reference, "arms": arms, "repeat": self.repeat.to_json(), "noise": self.noise}

    def _ratio(self, before: ArmLatency, after: ArmLatency) -> Ratio:
        logs = np.log(_medians(before)) - np.log(_medians(after))
        draws = np.random.default_rng(self.seed).integers(len(logs), size=(_RESAMPLES, len(logs)))
        low, high = np.percentile(logs[draws].mean(axis=1), [2.5, 97.5])
        return Ratio(ratio=float(np.exp(logs.mean())), low=float(np.exp(low)), high=float(np.exp(high)))


def measure_latency(
    runs: Mapping[str, Callable[[], object]],
    rounds: int = 20,
    iterations: int = 10,
    warmup: int = 5,
    seed: int = 0,
    progress: Progress = silent,
) -> LatencyReport:
    """Time every version in turn, A B A' and then A' B A, so that a drifting clock favours none.

    Args:
        runs: What to time, by name; the first is the reference and is measured twice, as A and A'.
        rounds: Turns; at least 2.
        iterations: Timed calls per version and round.
        warmup: Untimed calls per version before the first round.
        seed: Of the bootstrap.
        progress: Told of every round, stage ``latency``.

    Raises:
        InputError: There is nothing to time, or a count is too small.
    """
    if not runs or rounds < 2 or iterations < 1 or warmup < 0:
        raise InputError(
            f"cannot time {len(runs)} models in {rounds} rounds of {iterations} after {warmup}",
            "Give at least one model, two rounds and one iteration.",
        )
    reference = next(iter(runs))
    slots = [*runs.items(), ("", runs[reference])]
    times: Dict[str, List[Tuple[float, ...]]] = {name: [] for name, _ in slots}
    for run in runs.values():
        for _ in range(warmup):
            run()
    progress("latency", 0, rounds)
    for done in range(rounds):
        for name, run in slots if done % 2 == 0 else reversed(slots):
            times[name].append(_time(run, iterations))
        progress("latency", done + 1, rounds)
    repeat = ArmLatency(tuple(times.pop("")))
    return LatencyReport(reference, {name: ArmLatency(tuple(taken)) for name, taken in times.items()}, repeat, seed)


def _time(run: Callable[[], object], iterations: int) -> Tuple[float, ...]:
    run()  # untimed: the caches still hold the version before
    taken = []
    for _ in range(iterations):
        start = time.perf_counter_ns()
        run()
        taken.append((time.perf_counter_ns() - start) / _NS_PER_MS)
    return tuple(taken)


def _medians(arm: ArmLatency) -> npt.NDArray[np.float64]:
    return np.array([np.median(taken) for taken in arm.rounds_ms])
