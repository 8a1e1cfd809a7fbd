"""The fuzzer: it notices everything that can go wrong, repeats itself, and finds nothing in a few seconds."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys

import onnx
import pytest
from google.protobuf.message import DecodeError

import tests.support.fake_fuzz as fake_fuzz
from benchmarks.fuzz import worker
from benchmarks.fuzz.mutate import LARGEST, mutate_bytes, mutate_json, mutate_lines
from benchmarks.fuzz.mutate_onnx import mutate_onnx
from benchmarks.fuzz.mutate_tensors import mutate_safetensors
from benchmarks.fuzz.run import fuzz
from benchmarks.fuzz.targets import TARGETS
from tests.support.paths import ROOT

CORPUS = ROOT / "benchmarks" / "fuzz" / "corpus"
SLOW = {"prune.json", "benchmark.json"}  # which draw charts
KINDS = {"asleep": "over 10 s", "no memory": "over 2 GiB"}


@pytest.fixture
def short(monkeypatch):
    """Smaller limits than real ones, so that they are met soon."""
    monkeypatch.setattr(worker, "MAX_SECONDS", 1)
    monkeypatch.setattr(worker, "MAX_BYTES", 300 << 20)


def test_a_worker_notices_every_kind_of_failure(tmp_path, short):
    reader = worker.Worker(fake_fuzz.load, tmp_path, 0)
    try:
        for name in [*fake_fuzz.load(), "accepted"]:
            outcome = reader.run(name, 1)
            assert outcome.kind == KINDS.get(name, name)
            if name in ("KeyError", "over 10 s", "dead"):
                assert "fake_fuzz.py" in outcome.detail
    finally:
        reader.close()


def test_what_is_found_is_kept_once_and_counted(tmp_path, short, monkeypatch, capsys):
    monkeypatch.setattr("benchmarks.fuzz.run.load", fake_fuzz.load_some)
    tally = fuzz(["accepted", "refused", "KeyError"], 0.5, 7, 1, tmp_path / "found")
    (finding,) = tally.to_json()["findings"]
    assert (finding["target"], finding["kind"]) == ("KeyError", "KeyError")
    assert finding["count"] == tally.targets["KeyError"].findings == tally.targets["KeyError"].inputs > 1
    assert {path.name for path in (tmp_path / "found").iterdir()} == {"KeyError-7-1", "KeyError-7-1.txt"}
    target = fake_fuzz.load()["KeyError"]
    assert (tmp_path / "found" / "KeyError-7-1").read_bytes() == worker.input_of(target, "KeyError", 7, 1)
    for name in ("accepted", "refused"):
        assert getattr(tally.targets[name], name) == tally.targets[name].inputs > 1
    assert "found: KeyError" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("mutate", "seed"),
    [
        (mutate_onnx, "onnx/functions.onnx"),
        (mutate_onnx, "onnx/external.onnx"),
        (mutate_safetensors, "run/sparse.safetensors"),
        (mutate_json, "run/prune.json"),
        (mutate_bytes, "run/tactics.cache"),
        (mutate_lines(("&a ", "[")), "run/manifest.json"),
    ],
)
def test_changes_are_many_bounded_and_the_same_again(mutate, seed):
    content = (CORPUS / seed).read_bytes()
    made = [mutate(random.Random(number), content) for number in range(60)]
    assert [mutate(random.Random(number), content) for number in range(60)] == made
    assert len({*made}) > 40
    assert max(map(len, made)) <= LARGEST + 8


def test_most_changed_models_are_still_messages():
    content = (CORPUS / "onnx/plain.onnx").read_bytes()
    parsed = 0
    for number in range(60):
        with contextlib.suppress(DecodeError):
            onnx.ModelProto.FromString(mutate_onnx(random.Random(number), content))
            parsed += 1
    assert parsed > 40


def test_a_short_run_finds_nothing(tmp_path):
    targets = [part for name in TARGETS.keys() - SLOW for part in ("--target", name)]
    options = ["--inputs", "300", "--jobs", "1", "--seed", "1", "--findings", tmp_path / "found"]
    command = [sys.executable, "-m", "benchmarks.fuzz.run", *targets, *options, "--json", tmp_path / "counts.json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("seed 1, ")
    counts = json.loads((tmp_path / "counts.json").read_text())
    assert counts["findings"] == []
    assert counts["inputs"] == sum(each["accepted"] + each["refused"] for each in counts["targets"].values()) == 300
    assert all(each["inputs"] for each in counts["targets"].values())
    assert counts["peak_bytes"] < worker.MAX_BYTES
