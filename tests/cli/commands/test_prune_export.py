"""The main job on real digits, from checkpoint to report, and every command on what it wrote."""

import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

from calibration.data import open_data
from export.audit import read_metadata
from sparsegpt_core.checkpoints import load_checkpoint, load_into
from sparsegpt_core.files import sha256
from sparsegpt_core.patterns import NM, find_violations
from sparsegpt_core.zoo import ModelShape, build_model
from tests.support.fake_arms import classifier

FILES = {
    "dense.onnx",
    "dense.fp16.onnx",
    "dense.int8.onnx",
    "sparse.onnx",
    "sparse.fp16.onnx",
    "sparse.int8.onnx",
    "magnitude.onnx",
    "sparse.safetensors",
    "sparse.int8.safetensors",
    "prune.json",
    "manifest.json",
    "report.html",
}


@pytest.fixture(scope="module")
def run(digits_checkpoint, tmp_path_factory):
    """A finished run folder and what ``prune-export --json`` printed."""
    out = tmp_path_factory.mktemp("pipeline") / "out"
    command = [
        "prune-export",
        "--layers=all",
        "--weights",
        digits_checkpoint,
        "--data",
        "digits",
        "--int8",
        "--out",
        out,
        "--json",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "sparsegpt_cli", *map(str, command)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "prune 2/2" in done.stderr  # progress, and on standard error
    return out, json.loads(done.stdout)


def test_the_json_keeps_its_promise(run):
    out, content = run
    assert content.keys() >= {"out", "files", "layers", "accuracy", "seconds", "peak_memory_bytes"}
    assert content["files"].keys() == {"dense", "sparse", "checkpoint", "report", "manifest"}
    assert {path.name for path in out.iterdir()} == FILES
    assert content["seconds"].keys() >= {"total", "forward", "statistics", "solve"}
    assert content["peak_memory_bytes"] > 1e8
    assert {layer["name"]: layer["status"] for layer in content["layers"]} == {
        "conv1": "dense",
        "conv2": "pruned",
        "fc1": "pruned",
        "fc2": "dense",
    }
    assert [layer["reason"] for layer in content["layers"]] == ["CHANNELS_NOT_MULTIPLE", None, None, "HEAD"]
    pruned = [layer for layer in content["layers"] if layer["status"] == "pruned"]
    assert all(0 < layer["relative_error"] < layer["magnitude_error"] for layer in pruned)


def test_accuracy_is_that_of_the_files(run):
    """Recomputed from the files, with nothing but ONNX Runtime and the digits."""
    out, content = run
    data = open_data("digits")
    images, labels = next(iter(data.evaluation.batches(len(data.evaluation))))
    for name in ("dense", "magnitude", "sparse", "dense.int8", "sparse.int8"):
        logits = onnxruntime.InferenceSession(str(out / f"{name}.onnx")).run(None, {"input": images})[0]
        top1 = 100 * (logits.argmax(1) == labels).mean()
        assert content["accuracy"][name]["top1"] == pytest.approx(top1)
        assert content["accuracy"][name]["samples"] == len(labels)
    assert content["accuracy"]["dense"]["top1"] > 90
    for name in ("sparse", "sparse.int8"):
        assert abs(content["accuracy"][name]["difference"]["value"]) <= 1


def test_the_checkpoint_and_the_onnx_file_have_the_same_weights(run):
    out, _ = run
    checkpoint = load_checkpoint(out / "sparse.safetensors")
    assert checkpoint.metadata["pattern"] == "2:4"
    model = build_model("simple_cnn", ModelShape((1, 8, 8), 10)).eval()
    load_into(model, checkpoint.state)
    assert find_violations(model.conv2.weight.detach().numpy(), NM(2, 4), axis=1).count == 0
    images = torch.rand(4, 1, 8, 8)
    with torch.no_grad():
        expected = model(images).numpy()
    actual = onnxruntime.InferenceSession(str(out / "sparse.onnx")).run(None, {"input": images.numpy()})[0]
    np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-4)


def test_the_manifest_holds_the_hashes(run):
    out, _ = run
    files = json.loads((out / "manifest.json").read_text())["files"]
    assert files.keys() == FILES - {"manifest.json", "report.html"}
    assert all(
        entry == {"sha256": sha256(out / name), "bytes": (out / name).stat().st_size} for name, entry in files.items()
    )


def test_the_report_names_every_layer(run):
    out, _ = run
    report = (out / "report.html").read_text()
    assert all(text in report for text in ("conv2", "fc1", "HEAD", "CHANNELS_NOT_MULTIPLE"))


def test_the_same_seed_gives_the_same_files(run, digits_checkpoint, tmp_path, cli):
    out, _ = run
    again = tmp_path / "again"
    assert (
        cli("prune-export", "--layers=all", "--weights", digits_checkpoint, "--int8", "--out", again, "--quiet").code
        == 0
    )
    for name in FILES - {"prune.json", "manifest.json", "report.html"}:
        assert sha256(out / name) == sha256(again / name), name


def test_a_later_export_takes_the_same_integers(run, cli, tmp_path):
    out, _ = run
    later = tmp_path / "later.onnx"
    outcome = cli(
        *("export", "--weights", out / "sparse.safetensors", "--precision", "int8", "--data", "digits", "--out", later)
    )
    assert outcome.code == 0, outcome.err
    first, second = (
        {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(str(path)).graph.initializer}
        for path in (out / "sparse.int8.onnx", later)
    )
    integers = [name for name, value in first.items() if value.dtype == np.int8 and value.ndim > 1]
    assert integers
    assert all(np.array_equal(first[name], second[name]) for name in integers)


@pytest.mark.parametrize("name", ["sparse.onnx", "sparse.fp16.onnx", "sparse.int8.onnx", "magnitude.onnx"])
def test_verify(run, cli, name):
    out, _ = run
    content = cli("verify", out / name, "--fail-on", "dense", "--json").json
    assert (content["pattern"], content["sparse_layers"], content["eligible_layers"]) == ("2:4", 2, 2)
    layers = {layer["name"]: layer for layer in content["layers"]}
    assert layers["conv2"]["violations"] == 0
    assert layers["conv2"]["dtype"] == {"sparse.fp16.onnx": "float16", "sparse.int8.onnx": "int8"}.get(name, "float32")
    assert layers["fc2"]["reason"] == "HEAD"
    assert cli("verify", out / name, "--fail-on", "dense").code == 0
    assert cli("verify", out / name, "--fail-on", "ineligible").code == 1


def test_verify_without_torch(run, program):
    out, _ = run
    without = ("torch", "torchvision", "onnxruntime", "safetensors")
    outcome = program("verify", out / "sparse.onnx", "--json", without=without)
    assert outcome.code == 0, outcome.err
    assert outcome.json["sparse_layers"] == 2


def test_one_edited_weight_fails_the_gate(run, cli, tmp_path):
    out, _ = run
    model = onnx.load(str(out / "sparse.onnx"))
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "conv2.weight")
    weight = numpy_helper.to_array(tensor).copy()
    weight[5, 8:12, 1, 2] = 1.0
    tensor.CopyFrom(numpy_helper.from_array(weight, tensor.name))
    broken = tmp_path / "broken.onnx"
    onnx.save(model, str(broken))
    outcome = cli("verify", broken, "--fail-on", "dense", "--json")
    assert outcome.code == 1
    layer = next(layer for layer in outcome.json["layers"] if layer["name"] == "conv2")
    assert layer["violations"] == 1
    assert layer["first_violation"] == {"k": 5, "c_group": 2, "r": 1, "s": 2}
    assert "conv2" in outcome.err


@pytest.mark.parametrize("name", ["sparse.onnx", "sparse.fp16.onnx"])
def test_polygraphy_agrees(run, name):
    out, _ = run
    command = [
        sys.executable,
        str(Path(sys.executable).with_name("polygraphy")),
        "inspect",
        "sparsity",
        str(out / name),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    for weight in ("conv2.weight", "fc1.weight"):
        assert f"Found sparse tensor: {weight}" in done.stdout
    assert "Found sparse tensor: fc2.weight" not in done.stdout


@pytest.mark.parametrize("name", ["sparse.fp16.onnx", "sparse.int8.onnx"])
def test_tensorrt_rtx_parses_and_builds(run, program, tmp_path, name):
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx-cu13 is an optional extra")
    out, _ = run
    environment = {**os.environ, "POLYGRAPHY_USE_TENSORRT_RTX": "1"}
    command = [
        sys.executable,
        str(Path(sys.executable).with_name("polygraphy")),
        "inspect",
        "model",
        str(out / name),
    ]
    assert subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0
    plan = tmp_path / "sparse.plan"
    options = ["--backend", "tensorrt-rtx", "--compute-capability", "8.6", "--sparse", "--out", plan]
    outcome = program("build", out / name, *options)
    assert outcome.code == 0, outcome.err
    assert "does not show whether sparse kernels are used" in outcome.out
    sidecar = json.loads(plan.with_suffix(".plan.json").read_text())
    assert sidecar["sha256"] == sha256(plan)
    assert (sidecar["eligible_layers"], sidecar["chosen_layers"], sidecar["sparse_flag"]) == (2, None, True)


def test_benchmark_and_report(run, cli, tmp_path):
    out, _ = run
    result = tmp_path / "benchmark.json"
    pair = (out / "dense.onnx", out / "sparse.onnx")
    options = ["--runtime", "onnxruntime", "--rounds", 3]
    outcome = cli("benchmark", *pair, *options, "--max-drop", 5, "--out", result, "--json")
    assert outcome.code == 0, outcome.err
    content = outcome.json
    assert content == json.loads(result.read_text())
    assert content["speedup"]["A_to_C"] is None
    assert "ONNX Runtime's CPU kernels do not use 2:4 zeros" in content["verdict"]
    assert content["accuracy"]["difference"].keys() == {"value", "low", "high"}
    assert cli("benchmark", *pair, *options, "--min-speedup", 1.1).code == 1


def test_benchmark_without_torch(run, program):
    out, _ = run
    pair = (out / "dense.onnx", out / "sparse.onnx")
    options = ["--runtime", "onnxruntime", "--rounds", 2, "--json"]
    outcome = program("benchmark", *pair, *options, without=("torch", "torchvision", "safetensors"))
    assert outcome.code == 0, outcome.err


def test_prune_then_export_is_prune_export(run, digits_checkpoint, cli, tmp_path):
    out, _ = run
    pruned, exported = tmp_path / "pruned.safetensors", tmp_path / "sparse.onnx"
    assert (
        cli("prune", "--layers=all", "--weights", digits_checkpoint, "--data", "digits", "--int8", "--out", pruned).code
        == 0
    )
    assert sha256(tmp_path / "pruned.int8.safetensors") == sha256(out / "sparse.int8.safetensors")
    assert load_checkpoint(pruned).metadata == load_checkpoint(out / "sparse.safetensors").metadata
    outcome = cli("export", "--weights", pruned, "--out", exported, "--data", "digits", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json["sparse_layers"] == 2
    ours, theirs = onnx.load(exported), onnx.load(out / "sparse.onnx")
    assert ours.graph.SerializeToString(deterministic=True) == theirs.graph.SerializeToString(deterministic=True)
    own = {"precision": "fp32", "weights_sha256": sha256(pruned)}  # export alone reads a checkpoint
    assert read_metadata(ours) == read_metadata(theirs) | own


def test_report_again(run, cli):
    out, _ = run
    before = (out / "report.html").read_bytes()
    assert cli("report", out).code == 0
    assert (out / "report.html").read_bytes() == before


def test_other_patterns(digits_checkpoint, cli, tmp_path):
    for pattern, zeros in (("1:4", 0.75), ("0.6", 0.6)):
        out = tmp_path / pattern.replace(":", "")
        path = out / "pruned.safetensors"
        outcome = cli(
            "prune", "--layers=all", "--weights", digits_checkpoint, "--pattern", pattern, "--out", path, "--json"
        )
        assert outcome.code == 0, outcome.err
        pruned = [layer["sparsity"] for layer in outcome.json["layers"] if layer["status"] == "pruned"]
        assert pruned
        assert all(sparsity == pytest.approx(zeros, abs=0.02) for sparsity in pruned)


def test_training_prints_and_records_its_results(cli, tmp_path):
    out = tmp_path / "trained.safetensors"
    outcome = cli("train", "--model", "simple_cnn", "--data", "digits", "--epochs", 2, "--out", out, "--json")
    assert outcome.code == 0, outcome.err
    assert len(outcome.json["history"]) == 2
    metadata = load_checkpoint(out).metadata
    assert (metadata["model"], metadata["num_classes"], metadata["image"]) == ("simple_cnn", 10, [1, 8, 8])
    more = tmp_path / "more.safetensors"
    slow = ["--epochs", 1, "--learning-rate", 1e-9]
    outcome = cli("train", "--model", "simple_cnn", "--weights", out, *slow, "--out", more, "--json")
    assert outcome.code == 0, outcome.err
    first, second = load_checkpoint(out), load_checkpoint(more)
    assert second.metadata["started_from"] == first.sha256
    torch.testing.assert_close(first.state["conv1.weight"], second.state["conv1.weight"])


def test_random_weights_and_unlabelled_images(cli, random_images, tmp_path):
    """As the README's example with torchvision: no weights, no labels, no evaluation split."""
    out = tmp_path / "out"
    model = ["--model", "torchvision:squeezenet1_1", "--data", f"npz:{random_images}", "--quality", "fast"]
    outcome = cli("prune-export", "--layers=all", *model, "--out", out, "--json")
    assert outcome.code == 0, outcome.err
    assert "random weights" in outcome.err
    assert outcome.json["accuracy"] is None
    reasons = {layer["name"]: layer["reason"] for layer in outcome.json["layers"] if layer["status"] == "dense"}
    assert reasons == {"features.0": "CHANNELS_NOT_MULTIPLE", "classifier.1": "HEAD"}
    assert cli("verify", out / "sparse.onnx", "--fail-on", "dense").code == 0


def test_verify_is_quick(run, program):
    out, _ = run
    start = time.perf_counter()
    assert program("verify", out / "sparse.onnx").code == 0
    assert time.perf_counter() - start < 5  # a loaded machine; under 1 s on an idle one


def test_the_demo_shows_that_magnitude_loses_accuracy_where_sparsegpt_does_not(cli, tmp_path):
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx-cu13 is an optional extra")
    outcome = cli("demo", "--out", tmp_path / "demo", "--epochs", 4, "--json")
    assert outcome.code == 0, outcome.err
    rows = {row["model"]: row for row in outcome.json["rows"]}
    assert rows.keys() == {"dense", "magnitude", "sparse"}
    top1 = {name: float(row["top1"]) for name, row in rows.items()}
    assert abs(top1["sparse"] - top1["dense"]) <= 1
    assert top1["magnitude"] < top1["dense"] - 3
    assert rows["sparse"]["sparse"] == "6 of 8"
    assert rows["dense"]["engine"].endswith("MB")
    assert (tmp_path / "demo" / "report.html").is_file()


def test_benchmark_refuses_files_that_are_not_a_pair(run, cli, tmp_path):
    out, _ = run
    dense, sparse, options = out / "dense.onnx", out / "sparse.onnx", ["--runtime", "onnxruntime"]
    other = classifier(tmp_path / "other.onnx", np.ones((10, 64)), dtype=np.float32)
    for pair, message in (
        ((sparse, dense), "is dense. Swap the files: the dense file comes first."),
        ((dense, out / "sparse.fp16.onnx"), f"Compare {out / 'dense.fp16.onnx'} with {out / 'sparse.fp16.onnx'}."),
        ((dense, other), "other.onnx are different networks: weighted layer 1 is Conv 64x1x3x3 in the first"),
    ):
        outcome = cli("benchmark", *pair, *options)
        assert (outcome.code, outcome.out) == (1, "")
        (line,) = [text for text in outcome.err.splitlines() if not text.startswith(("runtime:", "data "))]
        assert line.startswith("error: ")
        assert message in line


def test_commands_end_with_the_next_one(cli, digits_checkpoint, tmp_path):
    """Each line is the next command."""
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx-cu13 is an optional extra")
    out, pruned = tmp_path / "my run", tmp_path / "pruned.safetensors"
    quick = ["--weights", digits_checkpoint, "--data", "digits", "--samples", 32, "--quality", "fast"]

    def following(*arguments):
        outcome = cli(*arguments)
        assert outcome.code == 0, outcome.err
        last = outcome.out.splitlines()[-1]
        assert last.startswith("next: sparsegpt-trt ")
        return shlex.split(last)[2:]

    (tmp_path / "mine.py").write_text(
        "def margin(outputs, labels): return outputs.max(axis=1)\nmargin.higher_is_better = True\n"
    )
    metric = ["--metric", f"{tmp_path / 'mine.py'}:margin"]
    command = following(
        "prune-export", "--layers=all", *quick, "--eval-samples", 64, "--no-baseline", *metric, "--out", out
    )
    files = [str(out / f"{arm}.fp16.onnx") for arm in ("dense", "sparse")]
    assert command == ["benchmark", *files, "--data", "digits", *metric, "--out", str(out / "benchmark.json")]
    assert following("build", files[1], "--compute-capability", "8.6") == ["report", str(out)]
    export = following("prune", "--layers=all", *quick, "--out", pruned)
    half = str(tmp_path / "pruned.fp16.onnx")
    assert export == ["export", "--weights", str(pruned), "--precision", "fp16", "--out", half]
    assert following(*export) == ["build", half]
