"""``--model net.onnx``: the commands on a network that is known by its file alone."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnxruntime import InferenceSession

from calibration.data import open_data
from sparsegpt_core import load_checkpoint

DIGITS = ("--data", "digits", "--mean", "0.3059", "--std", "0.3766")


@pytest.fixture(scope="module")
def file(tmp_path_factory, digits_checkpoint) -> Path:
    """The trained network as another tool writes it: without this program's metadata."""
    from sparsegpt_cli.app import main

    path = tmp_path_factory.mktemp("onnx") / "net.onnx"
    assert main(["export", "--weights", str(digits_checkpoint), "--out", str(path), "--quiet"]) == 0
    model = onnx.load(path)
    del model.metadata_props[:]
    model.metadata_props.add(key="author", value="someone")
    model.producer_name = "another tool"
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory, file) -> Path:
    from sparsegpt_cli.app import main

    out = tmp_path_factory.mktemp("run") / "out"
    command = [
        "prune-export",
        "--layers=all",
        "--model",
        file,
        *DIGITS,
        "--samples",
        128,
        "--int8",
        "--out",
        out,
        "--quiet",
    ]
    assert main([str(argument) for argument in command]) == 0
    return out


def test_prune_export_changes_the_weights_of_the_file_alone(file, run):
    dense, sparse = onnx.load(file), onnx.load(run / "sparse.onnx")
    written = onnx.load(run / "dense.onnx")
    for model in (written, sparse):
        (own,) = [entry for entry in model.metadata_props if entry.key != "author"]  # what this program records
        model.metadata_props.remove(own)
    assert written.SerializeToString(deterministic=True) == dense.SerializeToString(deterministic=True)
    changed = set()
    for before, after in zip(dense.graph.initializer, sparse.graph.initializer, strict=True):
        if before.raw_data != after.raw_data:
            changed.add(before.name)
            after.raw_data = before.raw_data
    assert sparse.SerializeToString(deterministic=True) == dense.SerializeToString(deterministic=True)
    layers = json.loads((run / "prune.json").read_text())["layers"]
    pruned = {layer["name"] for layer in layers if layer["status"] == "pruned"}
    nodes = {node.name: node for node in dense.graph.node}
    assert pruned == {"conv2", "fc1"}
    assert changed <= {name for each in pruned for name in nodes[each].input[1:]}


def test_both_doors_prune_the_same(cli, run, digits_checkpoint, tmp_path):
    """The masks and the accuracy are those of the checkpoint pruned as a PyTorch network."""
    out = tmp_path / "torch"
    outcome = cli(
        "prune-export",
        "--layers=all",
        "--weights",
        digits_checkpoint,
        "--data",
        "digits",
        "--samples",
        128,
        "--out",
        out,
    )
    assert outcome.code == 0, outcome.err
    masks = []
    for folder in (run, out):
        tensors = onnx.load(folder / "sparse.onnx").graph.initializer
        weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in tensors}
        masks.append({name: value != 0 for name, value in weights.items() if name.endswith("weight")})
    assert masks[0].keys() == masks[1].keys()
    different = sum(int((masks[0][name] != masks[1][name]).sum()) for name in masks[0])
    assert different <= 1e-3 * sum(mask.size for mask in masks[0].values())  # ties decided by the last bit
    first, second = (
        json.loads((folder / "prune.json").read_text())["accuracy"]["sparse"]["top1"] for folder in (run, out)
    )
    assert abs(first - second) < 0.5


def test_every_file_of_the_run_passes_verify_and_runs(cli, run):
    images = next(iter(open_data("digits").evaluation.batches(8)))[0]
    for name in ("sparse.onnx", "sparse.fp16.onnx", "sparse.int8.onnx"):
        assert cli("verify", run / name, "--fail-on", "dense", "--quiet").code == 0
        (logits,) = InferenceSession(run / name).run(None, {"input": images})
        assert logits.shape == (8, 10)
        assert np.isfinite(logits).all()


def test_a_checkpoint_of_a_file_goes_back_into_it(cli, file, run, tmp_path):
    """``prune`` writes the layers' weights; ``export`` writes the file with them, to the same values."""
    weights = tmp_path / "weights.safetensors"
    options = ("--model", file, *DIGITS, "--samples", 128, "--quiet")
    assert cli("prune", "--layers=all", *options, "--out", weights).code == 0
    assert set(load_checkpoint(weights).state) == set(load_checkpoint(run / "sparse.safetensors").state)
    outcome = cli("export", "--model", file, "--weights", weights, "--out", tmp_path / "again.onnx")
    assert outcome.code == 0, outcome.err
    initializers = [
        {tensor.name: tensor.raw_data for tensor in onnx.load(path).graph.initializer}
        for path in (tmp_path / "again.onnx", run / "sparse.onnx")
    ]
    assert initializers[0] == initializers[1]


def test_export_converts_any_file(cli, file, tmp_path):
    for precision, options in (("fp16", ()), ("int8", DIGITS)):
        out = tmp_path / f"{precision}.onnx"
        outcome = cli("export", "--model", file, "--precision", precision, *options, "--out", out)
        assert outcome.code == 0, outcome.err
        types = {tensor.data_type for tensor in onnx.load(out).graph.initializer}
        assert onnx.TensorProto.FLOAT16 in types or onnx.TensorProto.INT8 in types


@pytest.mark.parametrize("batch", [1, 3])
def test_a_batch_fixed_in_the_file_goes_through_every_stage(cli, file, tmp_path, batch):
    """The comparisons run it in portions. 4 images are no multiple of 3."""
    model = onnx.load(file)
    for each in (*model.graph.input, *model.graph.output):
        each.type.tensor_type.shape.dim[0].dim_value = batch
    onnx.save(model, tmp_path / "fixed.onnx")
    options = (*DIGITS, "--samples", 32, "--layers", "all", "--int8", "--no-baseline", "--eval-samples", 60, "--json")
    outcome = cli("prune-export", "--model", tmp_path / "fixed.onnx", *options, "--out", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    assert outcome.json["parity"]["sparse"]["samples"] == 4
    assert outcome.json["parity"]["sparse"]["relative"] < 1e-5
    for precision in ("", ".fp16", ".int8"):
        (size, *_) = onnx.load(tmp_path / f"out/sparse{precision}.onnx").graph.input[0].type.tensor_type.shape.dim
        assert size.dim_value == batch


def test_sweep_takes_a_file(cli, file, tmp_path):
    options = ("--method", "balanced", "--pattern", "2:4", "--samples", 64, "--jobs", 1)
    outcome = cli("sweep", "--weights", file, *DIGITS, *options, "--out", tmp_path / "sweep")
    assert outcome.code == 0, outcome.err
    (row,) = csv.DictReader((tmp_path / "sweep" / "results.csv").read_text().splitlines())
    assert row["checkpoint"] == "net"
    assert float(row["disagreement"]) < 5


def test_channels_and_blocks_of_a_file_stay_and_best_says_so(cli, file, tmp_path):
    options = ("--samples", 32, "--quality", "best", "--views", 0, "--look-ahead", "--no-baseline")
    outcome = cli("prune-export", "--layers=all", "--model", file, *DIGITS, *options, "--out", tmp_path / "best")
    assert outcome.code == 0, outcome.err
    assert "channels keep their order: its operations are those of an ONNX file" in outcome.err
    assert "no look-ahead: ONNX Runtime computes what is between the layers of an ONNX file" in outcome.err
