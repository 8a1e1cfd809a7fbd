"""The GPU benchmark as far as it goes without one: its graphs for real, its engines on stand-ins."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from benchmarks.gpu import accuracy, engines, provider, pruning, questions
from benchmarks.gpu.machine import end_with_errors, is_measured
from benchmarks.gpu.models import main as write_models
from benchmarks.gpu.page import MIN_TOP1, page
from deploy.benchmark import EngineSettings, benchmark_onnx
from deploy.builder import BuildSettings, build_engine
from deploy.machine import TENSORRT_PROVIDER as TENSORRT
from deploy.machine import find_gpu
from deploy.sessions import OnnxSession
from export.audit import audit_model
from sparsegpt_core.checkpoints import save_checkpoint
from sparsegpt_core.files import write_json
from sparsegpt_core.patterns import NM, find_violations
from sparsegpt_core.zoo import ModelShape, build_model
from tests.support.engines import SHORT, builder, gpu  # noqa: F401 - fixtures
from tests.support.fake_arms import classifier
from tests.support.paths import ROOT

ELIGIBLE = {"right-axis": 4, "wrong-axis": 0, "grouped": 0, "int8": 4, "int8-float-output": 4}


@pytest.mark.parametrize("name", questions.QUESTIONS)
def test_questions_are_what_they_say(name, tmp_path, monkeypatch):
    monkeypatch.setattr(questions, "CHANNELS", 64)
    monkeypatch.setattr(questions, "SIDE", 6)
    question, path = questions.QUESTIONS[name], tmp_path / "sparse.onnx"
    questions.write_graph(question, path, sparse=True)
    audit = audit_model(onnx.load(path), NM(2, 4))
    assert audit.eligible_layers == ELIGIBLE[name]
    built = build_engine(
        path, tmp_path / "sparse.plan", BuildSettings(backend="tensorrt-rtx", compute_capability="8.6")
    )
    assert built.eligible_layers == ELIGIBLE[name]
    shape = (2, 64, 6, 6)
    dtype = np.float16 if question.precision == "fp16" else np.float32
    assert np.isfinite(OnnxSession(path).run(np.ones(shape, dtype))).all()


def test_the_wrong_axis_is_two_of_four_along_it():
    weight = np.random.default_rng(0).standard_normal((8, 8, 3, 3)).astype(np.float32)
    wrong = questions.prune(weight, "flattened")
    assert (np.count_nonzero(wrong.reshape(-1, 4), axis=1) == 2).all()
    assert find_violations(wrong, NM(2, 4), axis=1).count
    assert not find_violations(questions.prune(weight, "channels"), NM(2, 4), axis=1).count


@pytest.fixture
def measured(tmp_path, builder, monkeypatch):  # noqa: F811
    """A folder of models with a trained pair, and what measuring it gives on stand-ins."""
    models, out = tmp_path / "models", tmp_path / "out"
    models.mkdir()
    weight = np.repeat(np.eye(4), 16, axis=1)
    for arm, own in (("dense", weight), ("sparse", weight * (np.arange(64) % 2))):
        classifier(models / f"fashion-mnist.{arm}.fp16.onnx", own)
    images = np.random.default_rng(0).integers(0, 9, (250, 1, 8, 8)).astype(np.float16)
    labels = images.reshape(250, 4, 16).sum(axis=2, dtype=np.float32).argmax(axis=1)
    np.savez(models / "fashion-mnist.npz", images=images, labels=labels)
    write_json(models / "fashion-mnist.json", {"pytorch_top1": {"dense": 93.0, "sparse": 92.5}})
    quick = EngineSettings(build=BuildSettings(backend="tensorrt"), rebuilds=1, timing=SHORT)
    monkeypatch.setattr(engines.measure, "__defaults__", (quick,))
    monkeypatch.setattr(accuracy, "SETTINGS", quick)
    monkeypatch.setattr(accuracy, "require_engines", lambda: None)
    monkeypatch.setattr(engines, "BATCHES", (1, 8))
    engines.measure_all(models, out, [])
    monkeypatch.setattr("sys.argv", ["accuracy", str(models), str(out)])
    accuracy.main()
    return out


def test_a_run_ends_in_a_page(measured):
    text = page(measured)
    assert "on an Fake A100, driver 580" in text
    assert "| fashion-mnist | fp16 | 8 |" in text
    assert "| fp16 | C |" in text
    assert "| 93.00 |" in text
    assert text.count("*Not measured yet.*") == 5  # questions, provider, baselines, pruning, cuSPARSELt


def test_what_is_measured_is_not_measured_again(measured, tmp_path, monkeypatch):
    monkeypatch.setattr(engines, "measure", pytest.fail)
    engines.measure_all(tmp_path / "models", measured, [])


def test_an_error_becomes_part_of_the_result(tmp_path):
    graph = onnx.load(classifier(tmp_path / "net.dense.fp16.onnx", np.ones((4, 64))))
    onnx.save(graph, tmp_path / "net.sparse.fp16.onnx")
    if find_gpu():
        pytest.skip("there is a GPU")
    found = engines.measure(tmp_path / "net.dense.fp16.onnx", tmp_path / "net.sparse.fp16.onnx", 1)
    assert found["error"]
    write_json(tmp_path / "engines-net-fp16-1.json", found)
    assert found["error"] in page(tmp_path)
    assert not is_measured(tmp_path / "engines-net-fp16-1.json")  # another run measures it
    with pytest.raises(SystemExit, match=r"these results are errors: engines-net-fp16-1\.json"):
        end_with_errors(tmp_path, "engines")


def test_baselines_are_trained_once_each_and_serve_what_follows(tmp_path):
    """The script itself, with a Python that only tells what it is asked for."""
    python, asked, out = tmp_path / "python", tmp_path / "asked", tmp_path / "out"
    told = json.dumps({"evaluation": {"top1": 93.9}, "history": [{}] * 20, "seconds": 61.4})
    take_out = 'for word; do [ "$last" = --out ] && touch "$word"; last=$word; done'
    tell = f"case $* in *sparsegpt_cli*) {take_out}; echo '{told}';; esac"
    python.write_text(f'#!/bin/sh\necho "$@" >>{asked}\n{tell}\n')
    python.chmod(0o755)
    environment = {**os.environ, "PYTHON": str(python), "PARTS": "baselines models"}
    for _ in range(2):
        subprocess.run(["sh", "benchmarks/gpu/run.sh", out], cwd=ROOT, env=environment, check=True)
    lines = asked.read_text().splitlines()
    assert ["sparsegpt_cli" in line for line in lines] == [True] * 4 + [False] * 2
    assert all(f"configs/{name}-fashion-mnist.yaml" in line for name, line in zip(MIN_TOP1, lines, strict=False))
    assert all("--device cuda" in line for line in lines[:4])
    assert all(line.endswith(f"--checkpoint {out}/models/resnet18.safetensors") for line in lines[4:])
    assert "| resnet18 | 20 | 61 | 93.90 | 94.0 ✗ |" in page(out)


def test_pruning_is_rehearsed_on_the_cpu(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["pruning", str(tmp_path), "--device", "cpu"])
    pruning.main()
    environment = {**os.environ, "PYTHON": sys.executable, "PARTS": "nccl page", "DEVICE": "cpu"}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run(["sh", "benchmarks/gpu/run.sh", tmp_path], cwd=ROOT, env=environment, check=True)
    found = {path.stem: json.loads(path.read_text())["result"] for path in tmp_path.glob("*.json")}
    assert found.keys() == {"pruning-resnet50", "pruning-agreement", "pruning-nccl"}
    shared = found["pruning-nccl"]
    assert (shared["processes"], shared["equal_mask_share"], shared["weight_distance"]) == (2, 1, 0)
    assert "2 processes with NCCL" in (tmp_path / "gpu.md").read_text()


def test_nccl_needs_two_processes(tmp_path, monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setattr(sys, "argv", ["pruning", str(tmp_path), "--nccl", "--device", "cpu"])
    with pytest.raises(SystemExit, match="NCCL needs two GPUs or more"):
        pruning.main()
    assert not list(tmp_path.iterdir())


@pytest.fixture
def pair(tmp_path):
    """A folder with the files of one network."""
    weight = np.random.default_rng(0).standard_normal((4, 64))
    for arm, own in (("dense", weight), ("sparse", weight * (np.arange(64) % 4 < 2))):
        classifier(tmp_path / f"net.{arm}.fp16.onnx", own)
    return tmp_path


def test_the_provider_measures_every_pair_on_images_that_fit(pair, tmp_path, monkeypatch):
    """ONNX Runtime's CPU provider in place of TensorRT's."""
    monkeypatch.setattr(provider, "require", lambda name: SimpleNamespace(get_available_providers=lambda: [TENSORRT]))
    monkeypatch.setattr(provider, "find_runtime", lambda name: None)

    def on_the_cpu(dense, sparse, batches, settings):
        assert settings.rebuilds == EngineSettings().rebuilds
        return benchmark_onnx(dense, sparse, batches, latency_batches=settings.batches)

    monkeypatch.setattr(provider, "benchmark_tensorrt_provider", on_the_cpu)
    monkeypatch.setattr(sys, "argv", ["provider", str(pair), str(tmp_path / "out")])
    provider.main()
    found = json.loads((tmp_path / "out" / "provider-net-fp16.json").read_text())
    assert (found["dense"], found["latency_batch"]) == ("net.dense.fp16.onnx", 32)
    write_json(tmp_path / "out" / "provider-net-fp16.json", {"dense": found["dense"], "batch": 32, "error": "odd"})
    assert "| net | fp16 | 32 |  |  |  | odd |" in page(tmp_path / "out")


@pytest.mark.skipif(find_gpu() is not None, reason="a GPU is here")
def test_without_a_gpu_each_part_ends_in_one_line(tmp_path):
    out = tmp_path / "out"
    parts = ["machine", "baselines", "engines", "provider", "nccl"]
    environment = {**os.environ, "PYTHON": sys.executable, "PARTS": " ".join(parts), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["sh", "benchmarks/gpu/run.sh", out], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert (done.stdout, "Traceback" in done.stderr) == ("", False)
    summary = dict(line.split(": ", 1) for line in (out / "logs" / "summary").read_text().splitlines())
    assert list(summary) == parts
    assert summary["machine"] == "done"
    assert summary["nccl"] == "not measured, because it needs two GPUs and there are 0"
    for part in ("baselines", "engines"):
        assert summary[part].startswith("failed: error: "), summary[part]
        assert (out / "logs" / f"{part}.log").read_text().count("\n") == 1
    machine = json.loads((out / "machine-python.json").read_text())
    assert machine["environment"]["gpu"] is None
    assert not list(out.glob("engines-*"))


def test_a_trained_network_is_written_with_all_test_images(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for split, count in (("train", 20), ("t10k", 10)):
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        for name, values in (("images-idx3", images), ("labels-idx1", np.arange(count, dtype=np.uint8) % 10)):
            head = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
            (tmp_path / f"{split}-{name}-ubyte").write_bytes(head + values.tobytes())
    notes = {"model": "simple_cnn", "image": [1, 28, 28], "num_classes": 10, "mean": [0.5], "std": [0.25]}
    weights = build_model("simple_cnn", ModelShape((1, 28, 28), 10)).state_dict()
    save_checkpoint(tmp_path / "net.safetensors", weights, notes)
    monkeypatch.setattr("benchmarks.gpu.models.SAMPLES", 20)
    command = ["models", str(tmp_path), "--networks", "--checkpoint", str(tmp_path / "net.safetensors")]
    monkeypatch.setattr(sys, "argv", [*command, "--data-root", str(tmp_path)])
    write_models()
    images, labels = next(accuracy.batches(tmp_path / "fashion-mnist.npz"))
    assert (len(images), len(labels)) == (10, 10)
    about = json.loads((tmp_path / "fashion-mnist.json").read_text())
    for precision, dense, sparse in accuracy.pairs(tmp_path):
        for arm, path in (("dense", dense), ("sparse", sparse)):
            found = OnnxSession(path).run(images).argmax(axis=1)
            assert abs(100 * (found == labels).mean() - about["pytorch_top1"][arm]) <= 20, (precision, arm)
    assert [precision for precision, _, _ in accuracy.pairs(tmp_path)] == ["fp16", "int8"]
