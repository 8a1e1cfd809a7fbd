"""The pruning benchmark on a toy network, without Model Optimizer."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from benchmarks.pruning.library import plain
from benchmarks.pruning.records import Job
from benchmarks.pruning.straightforward import straightforward
from benchmarks.pruning.workload import workload
from tests.support.paths import ROOT

ARMS = ("dense", "default", "plain", "straightforward")


@pytest.fixture
def bench(tmp_path):
    def run(*arguments: str) -> list[str]:
        command = [sys.executable, "-m", "benchmarks.pruning.run", "--quick", "--out", str(tmp_path)]
        threads = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [*command, *arguments], cwd=ROOT, env=threads, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return run


def test_measures_continues_and_summarises(bench, tmp_path):
    bench("--arms", *ARMS)
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
    said = bench("--arms", *ARMS)
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
