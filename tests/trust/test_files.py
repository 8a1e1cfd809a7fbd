"""What is loaded only as it was written: plans, timing caches, checkpoints; and code that no file may have run."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

from deploy.builder import BuildSettings, load_plan
from deploy.builder.compiler import compile_engine
from deploy.builder.timing_cache import load_timing_cache, save_timing_cache
from deploy.graph import read_graph, resolve_shapes
from deploy.machine import find_backend
from sparsegpt_cli.jobs.models import ModelSource, load_model
from sparsegpt_cli.terminal import Console
from sparsegpt_core.checkpoints import load_checkpoint, load_int8, save_checkpoint, save_int8
from sparsegpt_core.errors import InputError, ModelError, SparseGPTError
from sparsegpt_core.files import read_json, sidecar_path, verified_digest, write_json
from sparsegpt_core.network import Int8Weight
from tests.support.engines import conv_net
from tests.support.paths import ROOT


def seal(path: Path, content: bytes, **changes: Any) -> Path:
    path.write_bytes(content)
    record = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content), **changes}
    write_json(sidecar_path(path), record)
    return path


def refused(read: Any, *arguments: Any) -> str:
    with pytest.raises(SparseGPTError) as caught:
        read(*arguments)
    assert caught.value.hint
    return f"{caught.value}. {caught.value.hint}"


def test_a_plan_comes_with_its_record(tmp_path):
    plan = seal(tmp_path / "a.plan", b"code", backend="tensorrt")
    content, record = load_plan(plan)
    assert (content, record["backend"]) == (b"code", "tensorrt")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda plan: sidecar_path(plan).unlink(),
            "has no a.plan.json next to it, and a plan from anyone can run code",
        ),
        (lambda plan: plan.write_bytes(b"evil"), "is not the plan that a.plan.json describes"),
        (lambda plan: plan.write_bytes(b"code and more"), "is not the plan that a.plan.json describes"),
        (lambda plan: seal(plan, b"code", bytes=3), "is not the plan that a.plan.json describes"),
        (lambda plan: seal(plan, b"code", sha256=None), "is not the plan that a.plan.json describes"),
        (lambda plan: sidecar_path(plan).write_text("[]"), "is not the plan that a.plan.json describes"),
        (lambda plan: plan.unlink(), "cannot read"),
        (lambda plan: (plan.unlink(), plan.mkdir()), "cannot read"),
    ],
)
def test_a_plan_that_is_not_what_was_built(tmp_path, damage, message):
    plan = seal(tmp_path / "a.plan", b"code")
    damage(plan)
    said = refused(load_plan, plan)
    assert message in said
    assert said.endswith("Build it here with `sparsegpt-trt build`.")


def test_nothing_else_deserialises_an_engine():
    found = [path for path in (ROOT / "deploy").rglob("*.py") if "deserialize_cuda_engine" in path.read_text()]
    assert [path.name for path in found] == ["engine.py"]
    assert "plan, record = load_plan(plan_path)" in found[0].read_text()


def test_a_timing_cache_comes_back(tmp_path):
    cache = tmp_path / "tactics.cache"
    assert load_timing_cache(cache) is None
    save_timing_cache(cache, b"measured", "tensorrt", "10.9.0")
    assert load_timing_cache(cache) == b"measured"
    assert read_json(sidecar_path(cache))["backend_version"] == "10.9.0"


@pytest.mark.parametrize("damage", ["gone", "other", "longer"])
def test_a_timing_cache_of_anyone_is_refused(tmp_path, damage):
    cache = tmp_path / "tactics.cache"
    save_timing_cache(cache, b"measured", "tensorrt", "10.9.0")
    if damage == "gone":
        sidecar_path(cache).unlink()
    else:
        cache.write_bytes(b"mesaured" if damage == "other" else b"measured!")
    assert "Delete it; the next build measures again." in refused(load_timing_cache, cache)


def test_the_builder_reads_and_extends_timing_caches_that_are_recorded(tmp_path, monkeypatch):
    """TensorRT-RTX stands in for TensorRT: its timing cache is empty, but has the same functions."""
    trt = pytest.importorskip("tensorrt_rtx")
    backend = replace(find_backend("tensorrt-rtx"), name="tensorrt")
    create, read = trt.IBuilderConfig.create_timing_cache, []

    def create_timing_cache(config: Any, content: bytes) -> Any:
        read.append(content)
        return create(config, content)

    monkeypatch.setattr(trt.IBuilderConfig, "create_timing_cache", create_timing_cache)
    model, cache = tmp_path / "m.onnx", tmp_path / "tactics.cache"
    onnx.save(conv_net(), str(model))
    graph = read_graph(model)

    def compile_() -> bytes:
        profile = resolve_shapes(graph.inputs, None)
        return compile_engine(backend, model, graph, profile, BuildSettings(timing_cache=cache), None).plan

    assert compile_()
    written = load_timing_cache(cache)
    assert written
    assert written not in read
    assert compile_()
    assert read[-1] == written
    assert read_json(sidecar_path(cache))["backend"] == "tensorrt"
    cache.write_bytes(b"evil")
    refused(compile_)
    assert b"evil" not in read
    assert cache.read_bytes() == b"evil"


@pytest.fixture
def weights(tmp_path) -> Path:
    """A checkpoint that a manifest names, with INT8 weights."""
    path = tmp_path / "sparse.safetensors"
    save_checkpoint(path, {"w": torch.ones(4, 4)}, {})
    integers = save_int8(path, {"w": Int8Weight(torch.ones(4, 4, dtype=torch.int8), torch.ones(4), torch.zeros(4))})
    files = {each.name: {"sha256": verified_digest(each), "bytes": each.stat().st_size} for each in (path, integers)}
    write_json(tmp_path / "manifest.json", {"files": files})
    return path


def test_checkpoints_are_what_their_manifest_records(weights):
    assert load_checkpoint(weights).state["w"].shape == (4, 4)
    assert load_int8(weights)
    save_checkpoint(weights, {"w": torch.zeros(4, 4)}, {})
    said = refused(load_checkpoint, weights)
    assert "is not the file that manifest.json next to it records" in said
    assert "Run prune-export again" in said


def test_integers_are_what_their_manifest_records(weights):
    save_int8(weights, {"w": Int8Weight(*(torch.zeros(4, 4),) * 3)})
    assert "sparse.int8.safetensors is not the file that" in refused(load_int8, weights)


def test_the_command_tells_it_in_one_line(cli, weights, tmp_path):
    save_checkpoint(weights, {"w": torch.zeros(4, 4)}, {"image": [1, 8, 8]})
    outcome = cli("export", "--weights", weights, "--out", tmp_path / "x.onnx")
    assert outcome.code == 1
    assert len(outcome.err.strip().splitlines()) == 1


@pytest.mark.parametrize("manifest", ["[]", "{}", '{"files": []}', '{"files": {"other": {}}}'])
def test_a_manifest_that_does_not_name_the_file(weights, manifest):
    weights.with_name("manifest.json").write_text(manifest)
    assert load_checkpoint(weights).state


@pytest.mark.parametrize("manifest", ["", "[" * 100_000, '{"files": {"sparse.safetensors": 1}}'])
def test_a_manifest_that_is_damaged(weights, manifest):
    weights.with_name("manifest.json").write_text(manifest)
    with pytest.raises(InputError, match=r"manifest\.json"):
        load_checkpoint(weights)


def test_what_a_run_wrote_is_recorded(tmp_path, cli):
    out = tmp_path / "out"
    options = [
        "--model",
        "simple_cnn",
        "--data",
        "digits",
        "--samples",
        32,
        "--quality",
        "fast",
        "--eval-samples",
        32,
        "--json",
    ]
    outcome = cli("prune-export", "--layers=all", *options, "--out", out)
    assert outcome.code == 0, outcome.err
    manifest = read_json(out / "manifest.json")
    assert {*manifest["files"]} == {path.name for path in out.iterdir()} - {"manifest.json", "report.html"}
    for name, record in manifest["files"].items():
        content = (out / name).read_bytes()
        assert record == {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    assert manifest["versions"]["torch"]
    assert manifest["tool_version"]


@pytest.mark.parametrize("spec", ["hostile_module:factory", "timm:hostile_module:factory", "os:system"])
def test_no_checkpoint_has_code_run(tmp_path, monkeypatch, spec):
    (tmp_path / "hostile_module.py").write_text("raise SystemExit('run')")
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "weights.safetensors"
    save_checkpoint(path, {"w": torch.ones(1)}, {"model": spec})
    console = Console(quiet=True)
    said = refused(load_model, ModelSource("", path), load_checkpoint(path), (1, 8, 8), console)
    assert f"Give --model {spec} if you know that code." in said
    assert "hostile_module" not in sys.modules


def test_a_factory_that_is_asked_for_says_that_it_runs(tmp_path, monkeypatch, capsys):
    (tmp_path / "own_factory.py").write_text("import torch\ndef make(): return torch.nn.Conv2d(1, 4, 1)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    load_model(ModelSource("own_factory:make"), None, (1, 8, 8), Console())
    assert "importing and running own_factory:make" in capsys.readouterr().err


@pytest.mark.parametrize(
    "noted",
    [
        [],
        {"model": 1},
        {"image": 5},
        {"image": [1, 8]},
        {"image": [1, 10**9, 10**9]},
        {"num_classes": "ten"},
        {"num_classes": 10**12},
        {"mean": 0.5},
        {"std": [10**400]},
        {"mean": ["a"]},
        {"pruned": [1]},
        {"pattern": {}},
    ],
    ids=str,
)
def test_notes_that_are_something_else(tmp_path, noted):
    path = tmp_path / "weights.safetensors"
    save_checkpoint(path, {"w": torch.ones(1)}, {"key": "NOTED"})
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    header["__metadata__"]["sparsegpt_trt"] = json.dumps(noted)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + int.from_bytes(content[:8], "little") :])
    with pytest.raises(ModelError, match="the metadata of"):
        load_checkpoint(path)


def test_sizes_that_are_noted_do_not_fill_the_memory(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_checkpoint(path, {"w": torch.ones(1)}, {"model": "simple_cnn", "image": [1, 60_000, 60_000]})
    with pytest.raises(ModelError, match="does not fit the model"):
        load_model(ModelSource("", path), load_checkpoint(path), (1, 60_000, 60_000), Console(quiet=True), 10)
