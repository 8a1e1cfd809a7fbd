"""Bad input at every door: one clear line, exit 1, nothing half-written."""

import signal

import numpy as np
import pytest
import torch
from torch import nn

from sparsegpt_core.checkpoints import load_checkpoint, save_checkpoint


class Evil:
    def __reduce__(self):
        return open, ("evil", "w")


def saved(path, content):
    path.write_bytes(content)
    return path


@pytest.fixture
def inputs(tmp_path, digits_checkpoint):
    """Inputs of every bad kind, by name."""
    whole = digits_checkpoint.read_bytes()
    good = load_checkpoint(digits_checkpoint)
    nan = {**good.state, "conv2.weight": torch.full_like(good.state["conv2.weight"], float("nan"))}
    save_checkpoint(tmp_path / "nan.safetensors", nan, good.metadata)
    torch.save(Evil(), tmp_path / "evil.pt")
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "other.pt")
    images = np.random.default_rng(0).random((6, 3, 16, 16), dtype=np.float32)
    np.savez(tmp_path / "rgb.npz", images=images)
    np.savez(tmp_path / "nan.npz", images=np.full_like(images, np.nan))
    return {
        "good": digits_checkpoint,
        "missing": tmp_path / "missing.safetensors",
        "folder": tmp_path,
        "half": saved(tmp_path / "half.safetensors", whole[: len(whole) // 2]),
        "empty": saved(tmp_path / "empty.safetensors", b""),
        "text": saved(tmp_path / "text.pt", b"hello"),
        "nan": tmp_path / "nan.safetensors",
        "evil": tmp_path / "evil.pt",
        "other": tmp_path / "other.pt",
        "rgb": tmp_path / "rgb.npz",
        "nan images": tmp_path / "nan.npz",
    }


CASES = [
    (["--weights", "{missing}"], "no checkpoint at"),
    (["--weights", "{folder}"], "no checkpoint at"),
    (["--weights", "{half}"], "truncated"),
    (["--weights", "{empty}"], "truncated"),
    (["--weights", "{text}", "--model", "simple_cnn", "--data", "digits"], "text.pt"),
    (["--weights", "{evil}", "--model", "simple_cnn", "--data", "digits"], "more than tensors"),
    (["--weights", "{other}", "--model", "simple_cnn", "--data", "digits"], "does not fit the model"),
    (["--weights", "{nan}"], "conv2.weight contains NaN or infinity"),
    (["--weights", "{good}", "--data", "npz:{rgb}"], "does not fit the model"),
    (["--weights", "{good}", "--data", "npz:{missing}"], "missing.safetensors"),
    (["--weights", "{good}", "--data", "npz:{text}"], "text.pt"),
    (["--model", "simple_cnn", "--data", "npz:{nan images}"], "NaN"),
    (["--model", "torchvision:resnet18", "--data", "digits"], "does not take images of shape (1, 8, 8)"),
    (["--weights", "{good}", "--data", "diggits"], "digits"),
    (["--weights", "{good}", "--data", "imagefolder:/no/such/folder"], "/no/such/folder"),
    (["--weights", "{good}", "--data", "mnist", "--data-root", "/no/such/folder"], "/no/such/folder"),
    (["--weights", "{good}", "--samples", "100000"], "100000"),
    (["--weights", "{good}", "--pattern", "4:2"], "4:2"),
    (["--weights", "{good}", "--pattern", "many"], "many"),
    (["--weights", "{good}", "--method", "magic"], "magic"),
    (["--weights", "{good}", "--device", "abacus"], "abacus"),
    (["--weights", "{good}", "--mean", "a,b"], "a,b"),
    (["--weights", "{good}", "--std", "0"], "std"),
    (["--weights", "{good}", "--exclude", "no_such_layer*"], "matches no layer"),
    (["--weights", "{good}", "--exclude", "*"], "nothing to prune"),
    (["--weights", "{good}", "--memory-limit", "lots"], "not a memory size"),
    (["--model", "no_such_model", "--data", "digits"], "unknown model"),
    (["--data", "digits"], "no model is named"),
]


@pytest.mark.parametrize(("options", "message"), CASES)
def test_prune_export(cli, inputs, tmp_path, options, message):
    arguments = [option.format(**inputs) for option in options]
    before = {path.name for path in tmp_path.iterdir()}
    outcome = cli("prune-export", "--layers=all", *arguments, "--out", tmp_path / "out", "--quiet")
    assert outcome.code == 1, outcome.err
    last = outcome.err.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last
    assert "Traceback" not in outcome.err
    assert {path.name for path in tmp_path.iterdir()} == before


def test_a_memory_limit_that_is_too_small_keeps_the_finished_stages(cli, digits_checkpoint, tmp_path):
    run = ("prune-export", "--layers=all", "--weights", digits_checkpoint, "--out", tmp_path / "out", "--memory-limit")
    outcome = cli(*run, "1MB")
    assert outcome.code == 1
    kept, last = outcome.err.strip().splitlines()[-2:]
    assert f"kept in {tmp_path / 'out.unfinished'}: stage dense." in kept
    assert last.startswith("error: ")
    assert "is too small" in last
    assert [path.name for path in tmp_path.iterdir()] == ["out.unfinished"]
    outcome = cli(*run, "8GB")
    assert outcome.code == 0, outcome.err
    assert "resuming an interrupted run. Finished: stage dense." in outcome.err
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_no_gpu(cli, digits_checkpoint, tmp_path):
    outcome = cli(
        "prune-export", "--layers=all", "--weights", digits_checkpoint, "--device", "cuda", "--out", tmp_path / "out"
    )
    assert outcome.code == 1
    assert "device 'cuda' cannot be used" in outcome.err
    assert outcome.err.endswith(", or set --device cpu.\n")


def test_output_that_cannot_be_written(cli, digits_checkpoint, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("mine")
    for out in (blocked, blocked / "inside"):
        outcome = cli("prune-export", "--layers=all", "--weights", digits_checkpoint, "--out", out, "--quiet")
        assert outcome.code == 1
        assert "Traceback" not in outcome.err
    assert blocked.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [blocked]


def test_a_full_disk_leaves_nothing(cli, digits_checkpoint, tmp_path, monkeypatch):
    from export.writing import saving as saving

    def full(model, path, limit):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saving, "_write", full)
    outcome = cli("prune-export", "--layers=all", "--weights", digits_checkpoint, "--out", tmp_path / "out", "--quiet")
    assert outcome.code == 1
    assert "No space left on device" in outcome.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_the_old_output(cli, digits_checkpoint, tmp_path, monkeypatch, request, number):
    from sparsegpt_cli.jobs import pipeline as pipeline

    # A shell's background jobs, this test among them, start with Ctrl-C ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    out = tmp_path / "out"
    out.mkdir()
    (out / "sparse.onnx").write_text("old")

    monkeypatch.setattr(pipeline, "prune", lambda *_: signal.raise_signal(number))
    outcome = cli("prune-export", "--layers=all", "--weights", digits_checkpoint, "--out", out, "--force", "--quiet")
    assert outcome.code == 130
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.unfinished"]  # to go on from
    assert [path.name for path in out.iterdir()] == ["sparse.onnx"]
    assert (out / "sparse.onnx").read_text() == "old"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["export", "--weights", "{good}", "--out", "{folder}/x.txt"], ".onnx"),
        (["export", "--weights", "{good}", "--out", "{folder}/x.onnx", "--precision", "fp64"], "fp64"),
        (["export", "--weights", "{other}", "--out", "{folder}/x.onnx", "--precision", "int8"], "no model"),
        (["export", "--weights", "{good}", "--out", "{folder}/x.onnx", "--opset", "9"], "opset 9"),
        (["export", "--weights", "{good}", "--out", "{folder}/x.onnx", "--io-dtype", "int8"], "io-dtype"),
        (["export", "--weights", "{other}", "--out", "{folder}/x.onnx"], "--image-size"),
        (["prune", "--weights", "{good}", "--out", "{folder}/x.onnx"], ".safetensors"),
        (["train", "--model", "simple_cnn", "--out", "{folder}/x.pt"], ".safetensors"),
        (["train", "--model", "simple_cnn", "--out", "{folder}/x.safetensors", "--schedule", "none"], "schedule"),
        (["train", "--model", "simple_cnn", "--out", "{folder}/x.safetensors"], "no data is named"),
        (["train", "--model", "simple_cnn", "--out", "{folder}/x.safetensors", "--data", "npz:{rgb}"], "no labels"),
        (["verify", "{half}"], "not an ONNX file"),
        (["verify", "{folder}"], "directory"),
        (["verify", "{missing}", "--pattern", "0.5"], "not an N:M pattern"),
        (["build", "{missing}"], "missing.safetensors"),
        (["build", "{text}", "--out", "{folder}/x.plan"], "text.pt"),
        (["build", "{text}", "--backend", "tensorflow"], "tensorflow"),
        (["benchmark", "{missing}", "{missing}"], "missing.safetensors"),
        (["report", "{folder}"], "prune.json"),
    ],
)
def test_other_commands(cli, inputs, tmp_path, arguments, message):
    before = {path.name for path in tmp_path.iterdir()}
    outcome = cli(*(argument.format(**inputs) for argument in arguments), "--quiet")
    assert outcome.code == 1, outcome.err
    assert len(outcome.err.strip().splitlines()) == 1
    assert message in outcome.err
    assert {path.name for path in tmp_path.iterdir()} == before


def test_null_in_the_metadata_counts_as_absent(cli, digits_checkpoint, tmp_path):
    checkpoint = load_checkpoint(digits_checkpoint)
    weights, out = tmp_path / "null.safetensors", tmp_path / "x.onnx"
    save_checkpoint(weights, checkpoint.state, {**checkpoint.metadata, "image": None, "pruned": None, "pattern": None})
    outcome = cli("export", "--weights", weights, "--out", out, "--quiet")
    assert outcome.err == (
        "error: the checkpoint does not record the image shape. Give --image-size 224 and --channels 3, or --data.\n"
    )
    outcome = cli("export", "--weights", weights, "--out", out, "--image-size", 8, "--channels", 1, "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json["sparse_layers"] == 0
