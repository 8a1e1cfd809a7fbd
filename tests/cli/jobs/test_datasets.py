"""The data of a job: named by the user, else by the model's file, and never by a default."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

from export.audit import read_metadata, write_metadata
from export.writing import export_model
from sparsegpt_core.checkpoints import load_checkpoint, save_checkpoint
from sparsegpt_core.zoo import ModelShape, build_model

NOTES = {"model": "simple_cnn", "image": [1, 8, 8], "num_classes": 10, "pattern": "2:4", "pruned": []}
NO_DATA = (
    "error: no data is named. Give --data: digits, mnist, fashion-mnist, cifar10, cifar100, imagefolder:PATH, "
    "letterbox:PATH, npz:PATH, package.module:loader."
)


@pytest.fixture
def folder(tmp_path):
    """A network whose files record no data: ``net.safetensors`` and ``net.onnx``; and ``images.npz``."""
    torch.manual_seed(0)
    network = build_model("simple_cnn", ModelShape((1, 8, 8), 10)).eval()
    save_checkpoint(tmp_path / "net.safetensors", network.state_dict(), NOTES)
    onnx.save(export_model(network, (1, 8, 8), NOTES), str(tmp_path / "net.onnx"))
    generator = np.random.default_rng(0)
    images = generator.random((40, 1, 8, 8), dtype=np.float32)
    np.savez(tmp_path / "images.npz", images=images, labels=np.arange(40) % 10)
    return tmp_path


def record_data(folder, spec):
    """Record the data in both of the network's files."""
    kept = load_checkpoint(folder / "net.safetensors")
    save_checkpoint(folder / "net.safetensors", kept.state, {**kept.metadata, "data": spec})
    model = onnx.load(str(folder / "net.onnx"))
    write_metadata(model, {**NOTES, "data": spec})
    onnx.save(model, str(folder / "net.onnx"))


COMMANDS = [
    ["prune", "--weights", "net.safetensors", "--out", "x.safetensors"],
    ["prune-export", "--weights", "net.safetensors", "--out", "x"],
    ["finetune", "--weights", "net.safetensors", "--out", "x.safetensors"],
    ["train", "--model", "simple_cnn", "--out", "x.safetensors"],
    ["train", "--model", "simple_cnn", "--weights", "net.safetensors", "--out", "x.safetensors"],
    ["export", "--weights", "net.safetensors", "--precision", "int8", "--out", "x.onnx"],
    ["benchmark", "net.onnx", "net.onnx", "--runtime", "onnxruntime"],
    ["sweep", "--weights", "net.safetensors", "--out", "x"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_command_chooses_data_by_itself(cli, folder, monkeypatch, command):
    monkeypatch.chdir(folder)
    before = {path.name for path in folder.iterdir()}
    outcome = cli(*command, "--quiet")
    assert (outcome.code, outcome.err.strip()) == (1, NO_DATA)
    assert {path.name for path in folder.iterdir()} == before


@pytest.mark.parametrize("command", [each for each in COMMANDS if "net" in " ".join(each)], ids=" ".join)
def test_every_command_takes_the_data_that_the_file_records(cli, folder, monkeypatch, command):
    monkeypatch.chdir(folder)
    record_data(folder, "npz:gone.npz")
    outcome = cli(*command, "--quiet")
    assert outcome.code == 1
    assert outcome.err.splitlines()[-1] == (
        "error: cannot read gone.npz: No such file or directory (the model's file records the data npz:gone.npz). "
        "Give --data the place where it is now."
    )


def test_a_pruned_network_records_its_calibration_data(cli, folder, monkeypatch):
    monkeypatch.chdir(folder)
    for command, out in (("prune", "x.safetensors"), ("prune-export", "x")):
        weights = ("--layers=all", "--weights", "net.safetensors")
        outcome = cli(command, *weights, "--data", "npz:images.npz", "--out", out, "--quiet")
        assert outcome.code == 0, outcome.err
    assert load_checkpoint(folder / "x.safetensors").metadata["data"] == "npz:images.npz"
    for name in ("dense.onnx", "sparse.onnx"):
        assert read_metadata(onnx.load(str(folder / "x" / name)))["data"] == "npz:images.npz"
