"""Measures the latency of several versions of one model in turns, and the noise of the machine with it."""

from __future__ import annotations

__all__ = ["ArmLatency", "LatencyReport", "Rounds", "join_rebuilds", "measure_latency"]

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Dict, List, Optional, Tuple

import numpy as np
import numpy.typing as npt

from deploy.measure.speedup import Ratio, compare
from deploy.measure.timing import Regime, Timer, TimingSettings, warm_up
from sparsegpt_core.errors import InputError
from sparsegpt_core.progress import Progress, silent

Rounds = Tuple[Tuple[float, ...], ...]
"""Times in milliseconds, one tuple for each round."""


@dataclass(frozen=True)
class ArmLatency:
    """All measured times of one version."""

    engines: Tuple[Rounds, ...]
    """Times in milliseconds by engine, round and iteration. The engines are rebuilds of one another."""

    @property
    def rounds_ms(self) -> Rounds:
        """The times of each round, of all engines together."""
        return tuple(tuple(value for taken in turn for value in taken) for turn in zip(*self.engines))

    @property
    def samples(self) -> int:
        """The number of measured times."""
        return sum(map(len, self.rounds_ms))

    @property
    def medians(self) -> npt.NDArray[np.float64]:
        """The median of each engine (rows) in each round (columns), in milliseconds."""
        return np.array([[np.median(taken) for taken in rounds] for rounds in self.engines])

    @property
    def spread(self) -> float:
        """How much slower the slowest engine is than the fastest: 0.1 for 10 %, 0 for one engine."""
        medians = [np.median(np.concatenate(rounds)) for rounds in self.engines]
        return float(max(medians) / min(medians) - 1)

    def percentile(self, percent: float) -> float:
        """Return a percentile over all rounds, in milliseconds."""
        return float(np.percentile(np.concatenate(self.rounds_ms), percent))

    def throughput(self, images: int) -> float:
        """Return the images per second, for that number of images in each measured time."""
        return float(1000 * images / np.mean(np.concatenate(self.rounds_ms)))

    def to_json(self, images: int = 1) -> dict[str, Any]:
        """Return the percentiles, the throughput, the samples, and how the engines differ."""
        percentiles = {f"p{percent}_ms": self.percentile(percent) for percent in (50, 95, 99)}
        return {
            **percentiles,
            "throughput": self.throughput(images),
            "samples": self.samples,
            "rounds_ms": [[round(time_ms, 6) for time_ms in taken] for taken in self.rounds_ms],  # to a nanosecond
            "engines_p50_ms": [float(np.median(np.concatenate(rounds))) for rounds in self.engines],
            "spread": self.spread,
        }


@dataclass(frozen=True)
class LatencyReport:
    """The latency of all versions."""

    reference: str
    """The name of the version that is measured twice."""
    arms: Mapping[str, ArmLatency]
    """Latency by the version's name."""
    repeat: ArmLatency
    """The reference, measured a second time as if it were another version."""
    seed: int = 0
    """Seed of the bootstrap."""
    regime: Regime = field(default_factory=Regime)
    """What one sample measures."""
    unsettled: Tuple[str, ...] = ()
    """Versions whose times still changed when timing began."""
    settings: TimingSettings = field(default_factory=TimingSettings)
    """How long was timed."""

    @property
    def noise(self) -> float:
        """The larger of two relative differences: of the reference and its repeat, and of its engines.

        Smaller differences between versions mean nothing.
        """
        reference = self.arms[self.reference]
        ratio = compare(reference.medians, self.repeat.medians, self.seed).ratio
        return max(ratio - 1, 1 / ratio - 1, reference.spread)

    def speedup(self, before: str, after: str) -> Ratio:
        """Return how many times as fast ``after`` is as ``before``. Engines with the same index are of one rebuild."""
        return compare(self.arms[before].medians, self.arms[after].medians, self.seed)

    def to_json(self) -> dict[str, Any]:
        """Return ``{reference, arms: {name: ...}, repeat, noise, regime, unsettled, timing}``."""
        images = self.regime.images
        return {
            "reference": self.reference,
            "arms": {name: arm.to_json(images) for name, arm in self.arms.items()},
            "repeat": self.repeat.to_json(images),
            "noise": self.noise,
            "regime": self.regime.to_json(),
            "unsettled": list(self.unsettled),
            "timing": asdict(self.settings),
        }


def measure_latency(
    timers: Mapping[str, Sequence[Timer]],
    settings: Optional[TimingSettings] = None,
    seed: int = 0,
    progress: Progress = silent,
) -> LatencyReport:
    """Time all versions in turns, A B C A' and then A' C B A, so a drifting clock favours none of them.

    All timers make the same number of calls, so that the fastest one takes ``duration_s``.

    Args:
        timers: Timers by the version's name, one for each rebuild of its engine. The first version is the reference
            and is measured twice, as A and A'.
        settings: How long to time.
        seed: Seed of the bootstrap.
        progress: Receives the stage ``latency``, once per round.

    Raises:
        InputError: There are no timers, or they differ in their regime or number.

    Example:
        >>> from deploy.measure import HostTimer, TimingSettings
        >>> timers = {"dense": [HostTimer(lambda: sum(range(200)))], "sparse": [HostTimer(lambda: sum(range(100)))]}
        >>> report = measure_latency(timers, TimingSettings(duration_s=0.01, warmup_s=0.01))
        >>> report.speedup("dense", "sparse").ratio > 1
        True
    """
    settings = settings or TimingSettings()
    counts = {name: len(group) for name, group in timers.items()}
    if len(set(counts.values())) > 1:
        raise InputError(f"the models have different numbers of engines: {counts}", "Build each engine equally often.")
    if not any(counts.values()):
        raise InputError("there is nothing to time", "Give at least one timer.")
    regime = _common_regime(timers)
    reference = next(iter(timers))
    slots = [*timers.items(), ("", timers[reference])]  # the last slot measures the reference again
    taken: Dict[str, List[List[Tuple[float, ...]]]] = {name: [[] for _ in group] for name, group in slots}
    progress("latency", 0, settings.rounds)
    warm = {name: [warm_up(timer, settings.warmup_s) for timer in group] for name, group in timers.items()}
    call_s = min(found.call_s for group in warm.values() for found in group)
    iterations = max(1, math.ceil(settings.duration_s / settings.rounds / call_s))
    for done in range(settings.rounds):
        for name, group in slots if done % 2 == 0 else reversed(slots):
            for engine, timer in zip(taken[name], group):
                timer(1)  # untimed: the caches still contain the previous engine's data
                engine.append(timer(iterations))
        progress("latency", done + 1, settings.rounds)
    arms = {name: ArmLatency(tuple(map(tuple, engines))) for name, engines in taken.items()}
    repeat = arms.pop("")
    unsettled = tuple(name for name, group in warm.items() if not all(found.settled for found in group))
    return LatencyReport(reference, arms, repeat, seed, regime, unsettled, settings)


def join_rebuilds(reports: Sequence[LatencyReport]) -> LatencyReport:
    """Return the report of all engines, from reports of rebuilds that were timed one after another.

    Args:
        reports: One report for each part of the rebuilds, of the same versions and settings.

    Example:
        >>> report = join_rebuilds([of_first, of_second])  # doctest: +SKIP
        >>> report.speedup("A", "C").rebuilds  # doctest: +SKIP
        2
    """
    first = reports[0]
    regime = next((each.regime for each in reports if not each.regime.cuda_graph), first.regime)
    if any(each.regime.cuda_graph != regime.cuda_graph for each in reports):
        regime = replace(regime, note=f"{regime.note} Other rebuilds were timed with one.")
    return replace(
        first,
        arms={name: _join([each.arms[name] for each in reports]) for name in first.arms},
        repeat=_join([each.repeat for each in reports]),
        regime=regime,
        unsettled=tuple(name for name in first.arms if any(name in each.unsettled for each in reports)),
    )


def _join(arms: Sequence[ArmLatency]) -> ArmLatency:
    return ArmLatency(tuple(engine for arm in arms for engine in arm.engines))


def _common_regime(timers: Mapping[str, Sequence[Timer]]) -> Regime:
    regimes = {timer.regime for group in timers.values() for timer in group}
    if len(regimes) > 1:
        notes = " ".join(sorted({regime.note for regime in regimes if regime.note}))
        raise InputError(f"the models have different timing regimes. {notes}", "Use `cuda_graph=False`.")
    return regimes.pop()
