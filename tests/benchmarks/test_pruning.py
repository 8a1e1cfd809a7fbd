"""The pruning benchmark on a toy network, without Model Optimizer."""

from __future__ import annotations

import json

import pytest

from benchmarks.pruning import run as benchmark
from benchmarks.pruning.library import plain
from benchmarks.pruning.measure import measure
from benchmarks.pruning.records import Job
from benchmarks.pruning.straightforward import straightforward
from benchmarks.pruning.workload import workload

ARMS = ("dense", "default", "plain", "straightforward")


@pytest.fixture
def bench(tmp_path, monkeypatch, capsys):
    def run() -> list[str]:
        monkeypatch.setattr("sys.argv", ["run", "--quick", "--out", str(tmp_path), "--arms", *ARMS])
        assert benchmark.main() == 0
        return capsys.readouterr().out.splitlines()

    return run


def test_measures_continues_and_summarises(bench, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:  # the process of a measurement takes seconds to start
        patch.setattr(benchmark, "measure_apart", lambda _, job, **__: measure(Job(**json.loads(job))))
        bench()
    lines = (tmp_path / "measurements.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [(record["arm"], record["images"]) for record in records] == [*((arm, 8) for arm in ARMS), ("default", 16)]
    for record in records:
        assert record["seconds"] > 0
        assert record["peak_bytes"] >= record["peak_before_bytes"] > 0
        assert record["layers_2_4"] == record["layers"] == (0 if record["arm"] == "dense" else 2)
    page = (tmp_path / "README.md").read_text()
    assert "straightforward (c)" in page
    assert (tmp_path / "pruning.png").read_bytes().startswith(b"\x89PNG")

    (tmp_path / "measurements.jsonl").write_text("\n".join(lines[:-1]) + "\n")
    said = bench()
    assert said[0] == "1/1: default, simple_cnn, 16 images"
    assert (tmp_path / "measurements.jsonl").read_text().splitlines()[:-1] == lines[:-1]


def test_straightforward_is_plain_sparsegpt():
    job = Job("simple_cnn", "plain", 64)
    ours, batches = workload(job)
    theirs, _ = workload(job)
    plain(ours, batches, ())
    straightforward(theirs, batches, ())
    for name in ("conv2", "fc1"):
        a, b = ours.get_submodule(name).weight, theirs.get_submodule(name).weight
        assert ((a == 0) == (b == 0)).float().mean() > 0.99
        assert (a - b).norm() < 0.05 * b.norm()
