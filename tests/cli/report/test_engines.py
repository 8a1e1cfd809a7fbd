"""The HTML report of a benchmark on engines: arms, layers and the GPU; damaged and hostile input."""

from __future__ import annotations

import copy
import functools
import json
import re
import xml.etree.ElementTree as ET
from math import comb
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.benchmark import benchmark_engines
from sparsegpt_cli.report import render
from sparsegpt_cli.report.benchmark import Benchmark, median_interval
from sparsegpt_cli.report.engine_charts import ArmTimes, Gain, arms_chart, distribution_chart
from sparsegpt_cli.report.fields import Fields
from sparsegpt_core.errors import InputError
from sparsegpt_core.reasons import Reason
from tests.support.engines import (  # noqa: F401
    QUICK,
    batches,
    builder,
    gpu,
    nvml,
    pair,
)
from tests.support.reports import (
    GPU,
    SPARSE,
    Page,
    engine_benchmark,
    engine_run,
    hostile_engine_run,
    key_paths,
    read_page,
    sample_run,
    write_run,
)


def plain(page: Page) -> str:
    return page.text.replace("\xa0", " ")


def test_the_verdict_comes_first_and_everything_has_its_tab(tmp_path: Path) -> None:
    page = read_page(write_run(tmp_path, engine_run()))
    text = plain(page)
    assert not page.problems
    assert len(page.ids) == len(set(page.ids))
    verdict = f"On engines: {engine_benchmark()['explanation']['verdict']}."
    assert "faster at batch 8; " in verdict
    assert text.count(verdict) == 2
    assert "A to C at batch 32: total gain of pruning" in text
    assert "C at batch 8: sparse weights, sparse flag on" in text
    assert text.index(verdict) < text.index("layers are 2:4") < text.index("layers pruned")
    assert text.rindex(verdict) < text.index("Latency Layers Accuracy Engines and GPU")  # the tabs' labels
    assert page.tags["section"] == 6 + 4
    for phrase in (
        "Timed by GPU events, copies to and from the GPU left out, with a CUDA graph, batch 8, ",
        "A: dense weights, sparse flag off",
        "Sparse, ONNX Runtime",
        "over dense kernels is at most 1.",
        "All 20 layers",
        "sparse kernel: 13",
        "dense kernel: 6",
        "unknown kernel: 1",
        SPARSE,
        "timed within layer1.0.conv2 + relu1",
        "The clocks were throttled: sw_power_cap (25 % of the time).",
        "the GPU's clocks were held back: sw_power_cap",
        "1695",
        "B2",
    ):
        assert phrase in text, phrase
    for reason in (Reason.CHANNELS_NOT_MULTIPLE, Reason.SMALL_CHANNELS, Reason.OPAQUE):
        assert f"{reason.value} {reason.advice}" in text
    assert "say nothing about sparse tensor cores" not in text
    assert "has not been measured" not in text
    assert page.tags["svg"] == 3 + 2
    assert {"#layer-0", "#engine-layer-0"} <= set(page.links)
    explained = [text.replace("\xa0", " ") for text in page.explained]
    assert any(re.fullmatch(r"B to C at batch 8: 1\.\d{3}× \(1\.\d{3} … 1\.\d{3}\)", text) for text in explained)
    (times,) = {text for text in explained if "sparse flag on: 400 calls, " in text}
    assert re.search(r"^C: .* median 2\.\d{3} ms \(2\.\d{3} … 2\.\d{3}\), 95th 2\.\d{3} ms, 99th 2\.\d{3} ms$", times)


def test_an_interval_of_one_build_says_so(tmp_path: Path, no_charts: None) -> None:
    assert "of this build" not in plain(read_page(write_run(tmp_path / "two", engine_run())))
    speedup = {"A_to_C": {"ratio": 1.1, "low": 1.09, "high": 1.11, "rebuilds": 1}}
    text = plain(read_page(write_run(tmp_path / "one", engine_run(speedup=speedup))))
    assert text.count("95 % interval of this build") == 2


def test_a_benchmark_on_onnx_runtime_does_not_mention_engines(tmp_path: Path, no_charts: None) -> None:
    changes = {"runtime": "onnxruntime 1.22.0 CPU", "verdict": "No change.", "explanation": None, "speedup": {}}
    page = read_page(write_run(tmp_path, engine_run(**changes)))
    assert page.tags["input"] == 0
    assert "On engines" not in page.text
    assert "CUDA graph" not in page.text
    assert "Speed on a GPU has not been measured" in page.text
    assert "say nothing about sparse tensor cores" in page.text


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    page = read_page(write_run(tmp_path, hostile_engine_run()))
    assert not page.problems
    assert "img" not in page.tags
    assert page.text.count("<script>document.title=") > 100
    assert "\u202e" not in page.text


def test_missing_parts_are_named(tmp_path: Path, no_charts: None) -> None:
    page = read_page(
        write_run(tmp_path, engine_run(explanation=None, gpu=None, accuracy={}, latency_regime=None, engines={}))
    )
    for phrase in ("The layers are not explained", "clocks were not recorded", "No accuracy was recorded"):
        assert phrase in page.text
    assert not page.problems
    assert page.text.count(engine_benchmark()["verdict"]) == 2


@pytest.mark.parametrize(
    ("recorded", "sentence"),
    [
        ({"throttled": None}, "It is unknown whether the clocks were throttled."),
        ({"throttled": {}, "steady": True}, "The SM clock was steady. The clocks were not throttled."),
        ({"throttled": {"sync_boost": 1.0}, "locked": True}, "locked. The clocks were throttled: sync_boost (100 % of"),
    ],
)
def test_throttling(recorded: dict[str, Any], sentence: str) -> None:
    found = Benchmark(Fields({"gpu": {**GPU, **recorded}}, Path("benchmark.json"))).throttling
    assert sentence in found.replace("\xa0", " ")


def test_without_samples_the_percentiles_are_drawn(tmp_path: Path) -> None:
    latency = copy.deepcopy(engine_benchmark()["latency"])
    for arm in latency.values():
        del arm["rounds_ms"], arm["engines_p50_ms"]
    assert read_page(write_run(tmp_path, engine_run(latency=latency))).tags["svg"] == 3 + 1
    assert read_page(write_run(tmp_path, engine_run(latency={}))).tags["svg"] == 3


@pytest.mark.parametrize(
    ("key", "value", "phrase"),
    [
        ("latency", {"A": {"p50_ms": 1.0, "rounds_ms": [1.0]}}, "rounds_ms is not a list of lists of numbers"),
        ("latency", {"A": {"p50_ms": 1.0, "rounds_ms": [["1"]]}}, "rounds_ms is not a list of numbers"),
        ("latency", {"A": {"p50_ms": 1.0, "rounds_ms": [[float("nan")]]}}, "of sensible size"),
        ("latency", {"A": {"p50_ms": 1.0, "engines_p50_ms": [True]}}, "engines_p50_ms is not a list of numbers"),
        ("explanation", {"layers": [{"chosen": "yes"}]}, r"explanation.layers\[0\].chosen is not true or false"),
        ("engines", {"A": [1]}, "engines.A is not a list of objects"),
        ("gpu", {"sm_mhz": 1}, "gpu.sm_mhz is not an object"),
    ],
)
def test_damaged_benchmarks_are_named(tmp_path: Path, no_charts: None, key: str, value: Any, phrase: str) -> None:
    with pytest.raises(InputError, match=phrase):
        read_page(write_run(tmp_path, engine_run(**{key: value})))


def test_any_key_may_be_null(tmp_path: Path, no_charts: None) -> None:
    files = {**sample_run(1), "benchmark.json": engine_benchmark(2, 2)}
    for *way, key in key_paths(files["benchmark.json"]):
        if any(step != 0 for step in way if isinstance(step, int)):
            continue  # the first of every list will do
        damaged = copy.deepcopy(files)
        parent = functools.reduce(lambda value, step: value[step], way, damaged["benchmark.json"])
        if isinstance(parent, dict):
            parent[key] = None
            render.render_report(write_run(tmp_path, damaged))


def test_the_report_reads_what_the_benchmark_writes(builder, pair, nvml, tmp_path: Path) -> None:  # noqa: F811
    """Use a benchmark of the fake GPU, not the made-up one."""
    measured = json.loads(json.dumps(benchmark_engines(*pair, batches(), QUICK).to_json()))
    made_up = engine_benchmark()
    assert measured.keys() == made_up.keys()
    assert measured["gpu"].keys() == made_up["gpu"].keys()
    assert measured["engines"]["C"][0].keys() == made_up["engines"]["C"][0].keys()
    text = plain(read_page(write_run(tmp_path / "run", {"prune.json": {}, "benchmark.json": measured})))
    assert "sparse is 2.00× (2.00–2.00) faster at batch 8; 1 of 1 eligible layers use sparse kernels." in text
    assert "● sparse sm80_spgemm_f16 0.5000 0.5000 1.00× CHOSEN_NO_GAIN" in text
    assert "The clocks were throttled" in text


times = st.floats(0, 1e15)


drawn = st.builds(
    ArmTimes,
    st.text(max_size=60).filter(str.isprintable),
    times,
    st.none() | times,
    st.none() | times,
    st.none() | st.tuples(times, times),
    st.lists(times, min_size=1, max_size=9).map(tuple),
    st.lists(times, max_size=2).map(tuple),
)


@settings(max_examples=12, deadline=None)
@given(
    st.lists(drawn, min_size=1, max_size=4),
    st.lists(st.builds(Gain, st.text("ab$<&"), times, times, times), max_size=3),
)
def test_charts_are_well_formed_for_any_times(arms: list[ArmTimes], gains: list[Gain]) -> None:
    ET.fromstring(arms_chart(arms, gains, 0.01))
    ET.fromstring(distribution_chart(arms))


@pytest.mark.parametrize("count", [*range(6, 31), 500])
def test_the_interval_is_the_narrowest_with_95_percent_coverage(count: int) -> None:
    low, high = median_interval([float(value) for value in reversed(range(count))])  # type: ignore[misc]
    assert low + high == count - 1

    def covers(first: float) -> float:
        return 1 - 2 * sum(comb(count, below) for below in range(int(first) + 1)) / 2**count

    assert covers(low) >= 0.95 > covers(low + 1)


def test_too_few_rounds_have_no_interval() -> None:
    assert median_interval([1.0] * 5) is None
    assert median_interval([]) is None
