"""Intervals of speed-ups against simulated truth, with engines whose tactics are a matter of luck."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from deploy.builder import SparsityLog
from deploy.explain import Explanation
from deploy.measure import LatencyReport
from deploy.measure.latency import ArmLatency

TRIALS = 300


def build_arm(
    rng: np.random.Generator, mean_ms: float, drift: np.ndarray, rebuilds: int, engine_sd: float
) -> ArmLatency:
    """Draw the round medians of engines whose speeds differ by ``engine_sd``. A round's drift is common to all arms."""
    engines = mean_ms * np.exp(rng.normal(0, engine_sd, (rebuilds, 1)))
    return ArmLatency(time_again(rng, engines * drift))


def time_again(rng: np.random.Generator, medians: np.ndarray) -> tuple:
    timed = medians * np.exp(rng.normal(0, 0.002, medians.shape))
    return tuple(tuple((float(value),) for value in engine) for engine in timed)


def explained(report: LatencyReport) -> Explanation:
    """An explanation of an engine whose only layer uses a sparse kernel."""
    return Explanation(
        pattern="2:4",
        layers=(),
        eligible_layers=1,
        chosen_layers=1,
        builder=SparsityLog(),
        obstacle=None,
        eligible_share=None,
        ceiling=None,
        speedup=report.speedup("A", "C"),
        noise=report.noise,
        batch=None,
    )


@dataclass
class Rates:
    """Shares of the trials."""

    covers: float
    faster: float


def simulate(rebuilds: int, engine_sd: float, speedup: float = 1.0, trials: int = TRIALS) -> Rates:
    """Compare arms whose engines are drawn independently; their true speed-up is known."""
    rng = np.random.default_rng(0)
    covers = faster = 0
    for seed in range(trials):
        drift = np.exp(rng.normal(0, 0.05, 20))
        a = build_arm(rng, 1.0, drift, rebuilds, engine_sd)
        c = build_arm(rng, 1.0 / speedup, drift, rebuilds, engine_sd)
        repeat = ArmLatency(time_again(rng, a.medians))
        report = LatencyReport("A", {"A": a, "C": c}, repeat, seed=seed)
        found = report.speedup("A", "C")
        covers += found.low <= speedup <= found.high
        faster += "faster" in explained(report).verdict
    return Rates(covers / trials, faster / trials)


@pytest.mark.parametrize("engine_sd", [0.01, 0.003])
def test_the_default_interval_covers_the_lottery_of_tactics(engine_sd: float) -> None:
    found = simulate(3, engine_sd)
    assert 0.92 <= found.covers <= 0.98
    assert found.faster <= 0.03


def test_a_gain_is_found_beside_the_lottery() -> None:
    found = simulate(3, 0.01, speedup=1.2, trials=100)
    assert found.covers >= 0.9
    assert found.faster >= 0.9


def test_one_build_says_nothing_of_others() -> None:
    found = simulate(1, 0.01, trials=100)
    assert found.covers < 0.5  # which is why the verdict says "of this build"
