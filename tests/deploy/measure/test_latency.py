"""Accuracy against scikit-learn and SciPy, intervals against simulated truth."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from onnxruntime import InferenceSession
from scipy.special import log_softmax
from scipy.stats import entropy, sem
from scipy.stats import t as student
from sklearn.metrics import accuracy_score, log_loss, top_k_accuracy_score

from deploy.measure import (
    QUICK_TIMING,
    HostTimer,
    LatencyReport,
    Regime,
    TimingSettings,
    compare_accuracy,
    join_rebuilds,
    measure_latency,
)
from deploy.measure.accuracy import paired_difference
from deploy.measure.latency import ArmLatency
from deploy.measure.timing import warm_up
from sparsegpt_core.errors import DataError, InputError, NumericsError


def batches(logits: np.ndarray, labels: np.ndarray | None, size: int = 37):
    """The images are the logits themselves, so that a session is a function of them."""
    for start in range(0, len(logits), size):
        yield logits[start : start + size], None if labels is None else labels[start : start + size]


def noisy(images: np.ndarray) -> np.ndarray:
    return np.roll(images, 1, axis=1) * 0.7 + images


@pytest.mark.parametrize("classes", [10, 5])
def test_accuracy_agrees_with_sklearn(classes: int) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(classes, size=500)
    logits = rng.normal(size=(500, classes)) * 3 + 2 * np.eye(classes)[labels]
    stages = []
    report = compare_accuracy(
        {"dense": lambda x: x, "sparse": noisy},
        batches(logits, labels),
        progress=lambda *step: stages.append(step),
        total=14,
    )
    for name, values in (("dense", logits), ("sparse", noisy(logits))):
        arm, classes_seen = report.arms[name], np.arange(classes)
        assert arm.samples == 500
        assert arm.top1 == pytest.approx(100 * accuracy_score(labels, values.argmax(1)))
        assert arm.loss == pytest.approx(log_loss(labels, np.exp(log_softmax(values, axis=1)), labels=classes_seen))
        if classes > 5:
            assert arm.top5 == pytest.approx(100 * top_k_accuracy_score(labels, values, k=5, labels=classes_seen))
        else:
            assert arm.top5 is None
    p, q = (np.exp(log_softmax(values, axis=1)) for values in (logits, noisy(logits)))
    sparse = report.arms["sparse"]
    assert sparse.kl == pytest.approx(entropy(p, q, axis=1).mean())
    assert sparse.disagreement == pytest.approx(100 * np.mean(p.argmax(1) != q.argmax(1)))
    assert sparse.difference.value == pytest.approx(sparse.top1 - report.arms["dense"].top1)
    assert sparse.difference.low < sparse.difference.value < sparse.difference.high
    assert stages == [("accuracy", done, 14) for done in range(15)]
    found = json.loads(json.dumps(report.to_json()))
    assert set(found["dense"]) == {"top1", "top5", "loss", "samples"}
    assert set(found["sparse"]) == {"top1", "top5", "loss", "samples", "difference", "disagreement", "kl"}


def test_without_labels() -> None:
    logits = np.random.default_rng(0).normal(size=(50, 7))
    report = compare_accuracy({"dense": lambda x: x, "sparse": noisy}, batches(logits, None))
    sparse = report.arms["sparse"]
    assert (sparse.top1, sparse.top5, sparse.loss, sparse.difference) == (None, None, None, None)
    assert sparse.disagreement > 0
    assert sparse.kl > 0
    half = [(logits, None), (logits, np.zeros(50, int))]
    assert compare_accuracy({"dense": lambda x: x}, half).arms["dense"].top1 is None


def test_extreme_logits_stay_finite() -> None:
    logits = np.array([[1e30, 0, -1e30], [0, 0, 0]], dtype=np.float32)
    report = compare_accuracy({"dense": lambda x: x, "other": lambda x: -x}, [(logits, np.array([0, 0]))])
    assert report.arms["dense"].loss == pytest.approx(np.log(3) / 2)
    assert np.isfinite(report.arms["other"].kl)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_name_the_version(bad: float) -> None:
    logits = np.zeros((4, 3))
    with pytest.raises(NumericsError, match="'sparse'"):
        compare_accuracy({"dense": lambda x: x, "sparse": lambda x: x + bad}, [(logits, None)])


@pytest.mark.parametrize(
    ("sessions", "data", "error"),
    [
        ({"sparse": lambda x: x}, [(np.zeros((2, 3)), None)], InputError),
        ({"dense": lambda x: x}, [], InputError),
        ({"dense": lambda x: x}, [(np.zeros((0, 3)), None)], InputError),
        ({"dense": lambda x: x[:1]}, [(np.zeros((2, 3)), None)], InputError),
        ({"dense": lambda x: x[:, 0]}, [(np.zeros((2, 3)), None)], InputError),
        ({"dense": lambda x: x, "b": lambda x: x[:, :2]}, [(np.zeros((2, 3)), None)], InputError),
        ({"dense": lambda x: x}, [(np.zeros((2, 3)), np.array([0, 3]))], DataError),
        ({"dense": lambda x: x}, [(np.zeros((2, 3)), np.array([0, -1]))], DataError),
        ({"dense": lambda x: x}, [(np.zeros((2, 3)), np.array([0]))], DataError),
    ],
)
def test_logits_and_labels_that_do_not_fit_are_refused(sessions: dict, data: list, error: type) -> None:
    with pytest.raises(error):
        compare_accuracy(sessions, data)


def test_the_paired_interval_covers_the_truth() -> None:
    rng = np.random.default_rng(0)
    cells = np.array([0.90, 0.01, 0.03, 0.06])  # both right, gained, lost, both wrong
    hits = 0
    for _ in range(2000):
        drawn = rng.choice(4, size=300, p=cells)
        found = paired_difference((drawn == 0) | (drawn == 2), (drawn == 0) | (drawn == 1))
        hits += found.low <= -2.0 <= found.high
    assert 0.94 <= hits / 2000 <= 0.98


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=300))
def test_the_paired_interval_never_collapses(pairs: list[tuple[bool, bool]]) -> None:
    reference, other = np.array(pairs).T
    found = paired_difference(reference, other)
    assert -100 <= found.low <= found.value <= found.high <= 100
    assert found.high - found.low > 0.01
    mirrored = paired_difference(other, reference)
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low))


def synthetic(rng: np.random.Generator, mean: float, drift: np.ndarray) -> ArmLatency:
    times = mean * drift[:, None] * rng.lognormal(0, 0.1, size=(len(drift), 9))
    return ArmLatency((tuple(map(tuple, times)),))


@pytest.mark.parametrize("rounds", [6, 20])
def test_the_speedup_interval_covers_the_truth(rounds: int) -> None:
    rng, hits, level, claims = np.random.default_rng(0), 0, 0, 0
    for seed in range(1000):
        drift = rng.lognormal(0, 0.5, size=rounds)  # a clock that wanders far more than the arms differ
        a, b, again, same = (synthetic(rng, mean, drift) for mean in (12.0, 10.0, 12.0, 12.0))
        report = LatencyReport("a", {"a": a, "b": b, "same": same}, again, seed=seed)
        found, none = report.speedup("a", "b"), report.speedup("a", "same")
        hits += found.low <= 1.2 <= found.high
        level += none.low <= 1.0 <= none.high
        claims += none.low > 1 and none.ratio > 1 + report.noise
    assert 930 <= hits <= 970
    assert 930 <= level <= 970
    assert claims <= 50


def test_the_noise_is_how_much_the_repeated_reference_differs() -> None:
    a, slower, faster = (ArmLatency((((time_ms,) * 9,) * 20,)) for time_ms in (12.0, 15.0, 9.6))
    for repeat, noise in ((a, 0.0), (slower, 0.25), (faster, 0.25)):
        assert LatencyReport("a", {"a": a}, repeat).noise == pytest.approx(noise)


def test_the_interval_knows_that_engines_differ() -> None:
    """The rebuilds of an arm differ by 5 %: Student's interval over the rebuilds, as SciPy computes it."""
    a = ArmLatency((((10.0,) * 9,) * 20,) * 3)
    rebuilt = ArmLatency(tuple(((time_ms,) * 9,) * 20 for time_ms in (10.0, 10.25, 10.5)))
    report = LatencyReport("a", {"a": a, "rebuilt": rebuilt}, a)
    found, logs = report.speedup("a", "rebuilt"), np.log([1.0, 10 / 10.25, 10 / 10.5])
    interval = student.interval(0.95, df=2, loc=logs.mean(), scale=sem(logs))
    assert (found.low, found.high) == pytest.approx(np.exp(interval))
    assert found.ratio == pytest.approx(np.exp(logs.mean()))
    assert found.rebuilds == 3
    assert (a.spread, rebuilt.spread) == (0, pytest.approx(0.05))
    assert rebuilt.samples == 540
    assert report.noise == 0
    assert LatencyReport("rebuilt", {"rebuilt": rebuilt}, rebuilt).noise == pytest.approx(0.05)


def test_rebuilds_are_pairs() -> None:
    """Engines of one rebuild share a timing cache: what both have in common does not widen the interval."""
    a, c = (ArmLatency(tuple(((mean * each,) * 9,) * 20 for each in (1.0, 1.2, 1.1))) for mean in (10.0, 8.0))
    found = LatencyReport("a", {"a": a, "c": c}, a).speedup("a", "c")
    assert (found.low, found.ratio, found.high) == pytest.approx((1.25, 1.25, 1.25))


@settings(max_examples=20, deadline=None)
@given(st.floats(0.1, 10))
def test_an_exact_ratio_is_found(factor: float) -> None:
    a = ArmLatency((((1.0, 2.0), (3.0, 4.0)),))
    b = ArmLatency((tuple(tuple(value / factor for value in taken) for taken in a.rounds_ms),))
    report = LatencyReport("a", {"a": a, "b": b}, a)
    assert report.speedup("a", "b").ratio == pytest.approx(factor)
    assert report.speedup("b", "a").ratio == pytest.approx(1 / factor)
    assert report.noise == 0
    assert a.to_json()["p50_ms"] == 2.5
    assert a.to_json(images=5)["throughput"] == pytest.approx(2000)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The clock of warm-ups, which scripted timers put forward."""
    fake = SimpleNamespace(now=0.0)
    monkeypatch.setattr("deploy.measure.timing.time", SimpleNamespace(perf_counter=lambda: fake.now))
    return fake


class Script:
    """A timer that records its calls and returns given times in milliseconds, one for each block of calls."""

    def __init__(
        self, name: str, calls: list[str], times: list[float] | None = None, clock: object = None, **regime: object
    ) -> None:
        self.name, self.calls, self.times, self.regime = name, calls, times or [1.0], Regime(**regime)
        self.clock = clock or SimpleNamespace(now=0.0)

    def __call__(self, iterations: int) -> tuple[float, ...]:
        self.calls += [self.name] * iterations
        time_ms = self.times.pop(0) if len(self.times) > 1 else self.times[0]
        self.clock.now += iterations * time_ms / 1000
        return (time_ms,) * iterations


def test_measuring_interleaves_and_measures_the_reference_twice(clock: SimpleNamespace) -> None:
    calls: list[str] = []
    timers = {name: [Script(name, calls, None, clock), Script(name.lower(), calls, None, clock)] for name in "ABC"}
    report = measure_latency(timers, TimingSettings(duration_s=0.008, warmup_s=0, rounds=4))
    engines = {name: [name] * 3 + [name.lower()] * 3 for name in "ABC"}  # one untimed call, and two of 1 ms
    turn, back = ([each for name in order for each in engines[name]] for order in ("ABCA", "ACBA"))
    assert calls == [name for name in "AaBbCc" for _ in range(2)] + (turn + back) * 2
    assert [len(taken) for taken in report.arms["A"].rounds_ms] == [4] * 4
    assert [len(engine) for engine in report.arms["C"].engines] == [4, 4]
    found = report.to_json()
    assert found["arms"]["B"]["samples"] == found["repeat"]["samples"] == 16
    assert found["regime"] == {
        "clock": "host",
        "transfers": True,
        "cuda_graph": False,
        "batch": 1,
        "streams": 1,
        "inferences": 1,
        "note": "",
    }
    assert found["timing"] == {"duration_s": 0.008, "warmup_s": 0, "rounds": 4}
    assert json.dumps(found)


def test_every_engine_is_timed_for_three_seconds_after_half_a_second(clock: SimpleNamespace) -> None:
    calls: list[str] = []
    timers = {"A": [Script("A", calls, [0.3], clock)], "C": [Script("C", calls, [0.2], clock)]}
    report = measure_latency(timers)
    assert [arm.samples * arm.percentile(50) for arm in report.arms.values()] == pytest.approx([4500, 3000], rel=0.01)
    warmup = "".join(calls).partition("AC")[0] + "A"
    assert 0.5 <= 0.0003 * len(warmup) < 0.6
    calls.clear()
    quick = measure_latency(timers, QUICK_TIMING)
    assert quick.arms["C"].samples * 0.2 == pytest.approx(300, rel=0.02)


def test_the_warm_up_lasts_until_the_times_settle(clock: SimpleNamespace) -> None:
    def warm(times: list[float], seconds: float = 0.5) -> tuple[bool, float, float]:
        start = clock.now
        found = warm_up(Script("a", [], times, clock), seconds)
        return found.settled, pytest.approx(found.call_s), clock.now - start

    settled, call_s, lasted = warm([1.0])
    assert (settled, call_s) == (True, 0.001)
    assert 0.5 <= lasted < 0.6
    settled, call_s, lasted = warm([9 * 0.9**block for block in range(20)])
    assert (settled, call_s) == (True, 0.009 * 0.9**19)
    assert 0.6 < lasted < 2
    settled, _, lasted = warm([1.1**block for block in range(100)])
    assert not settled
    assert 2 <= lasted < 2.5
    assert warm([1.0], 0)[0]
    drifting = Script("a", [], [1.1**block for block in range(100)], clock)
    assert measure_latency({"a": [drifting]}).unsettled == ("a",)


def test_every_version_has_an_engine_of_every_rebuild() -> None:
    with pytest.raises(InputError, match="different numbers of engines"):
        measure_latency({"A": [Script("A", [])], "B": [Script("B", []), Script("b", [])]})


def test_versions_with_different_regimes_are_not_compared() -> None:
    with pytest.raises(InputError, match="different timing regimes"):
        measure_latency({"A": [Script("A", [])], "B": [Script("B", [], batch=2)]})
    for wrong in ({"clock": "sun"}, {"batch": 0}, {"streams": 0}, {"inferences": 0}):
        with pytest.raises(InputError, match="cannot time"):
            Regime(**wrong)


def test_rebuilds_that_were_timed_one_after_another_are_pairs_at_any_clock() -> None:
    """The second rebuild is timed when the GPU is a third slower, with other numbers of calls."""

    def timed(slower: float, calls: int, **differing: object) -> LatencyReport:
        def arm(mean: float) -> ArmLatency:
            return ArmLatency((((mean * slower,) * calls, (mean * slower * 1.01,) * calls),))

        return LatencyReport("A", {"A": arm(2.0), "C": arm(1.6)}, arm(2.0), **differing)

    first = timed(1.0, 3, regime=Regime("gpu", cuda_graph=True, inferences=4))
    joined = join_rebuilds([first, timed(1.5, 2, regime=first.regime, unsettled=("C",))])
    found = joined.speedup("A", "C")
    assert (found.ratio, found.low, found.high) == pytest.approx((1.25,) * 3)
    assert found.rebuilds == 2
    assert joined.regime == first.regime
    assert joined.unsettled == ("C",)
    assert joined.arms["C"].samples == joined.repeat.samples == 10
    assert joined.arms["A"].spread == pytest.approx(0.5)
    without = Regime("gpu", inferences=4, note="No CUDA graph of B2.plan: capture fails.")
    mixed = join_rebuilds([first, timed(1.0, 3, regime=without)]).regime
    assert not mixed.cuda_graph
    assert mixed.note == "No CUDA graph of B2.plan: capture fails. Other rebuilds were timed with one."


def test_the_hosts_clock() -> None:
    taken = HostTimer(lambda: time.sleep(0.002), batch=3)
    assert all(2 <= sample < 200 for sample in taken(3))
    assert taken.regime.images == 3


@pytest.mark.alone
def test_the_clock_adds_less_than_a_hundredth_to_a_tiny_model(tmp_path: Path) -> None:
    values = [helper.make_tensor_value_info(name, 1, ["N", size, 32, 32]) for name, size in (("x", 3), ("y", 16))]
    weight = numpy_helper.from_array(np.ones((16, 3, 3, 3), np.float32), "weight")
    conv = helper.make_node("Conv", ["x", "weight"], ["y"], pads=[1] * 4)
    graph = helper.make_graph([conv], "tiny", values[:1], values[1:], [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    session = InferenceSession(str(tmp_path / "m.onnx"), providers=["CPUExecutionProvider"])
    feed = {"x": np.ones((1, 3, 32, 32), np.float32)}
    nothing, inference = HostTimer(lambda: None), HostTimer(lambda: session.run(None, feed))
    assert min(nothing(5000)) < 0.01 * min(inference(500))


@pytest.mark.parametrize("wrong", [{"rounds": 1}, {"duration_s": -1}, {"warmup_s": -1}, {"duration_s": float("nan")}])
def test_timing_settings_are_validated(wrong: dict) -> None:
    with pytest.raises(InputError, match="cannot time"):
        TimingSettings(**wrong)


@pytest.mark.parametrize("timers", [{}, {"A": []}])
def test_there_is_something_to_time(timers: dict) -> None:
    with pytest.raises(InputError, match="nothing to time"):
        measure_latency(timers)
