"""The benchmark of ONNX files: the doors on a toy network, and the comparison of other tools' files with ours."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from benchmarks.onnx import doors
from benchmarks.onnx import run as benchmark
from benchmarks.onnx.files import _class_distance, _restored
from benchmarks.onnx.inputs import FILES, read_inputs
from benchmarks.onnx.jobs import DOORS, DoorJob
from export.writing import export_model


def measure_here(_, job, folder):
    job = DoorJob(**json.loads(job))
    return doors.prepare(job, folder) if job.door == "prepare" else doors.measure(job, folder)


def test_measures_continues_and_summarises(tmp_path, monkeypatch, capsys):
    out, work = tmp_path / "results", tmp_path / "work"
    command = ["run", "--quick", "--repeats", "1", "--out", str(out), "--work", str(work)]
    monkeypatch.setattr("sys.argv", command)

    def run():
        assert benchmark.main() == 0
        return capsys.readouterr().out.splitlines()

    with monkeypatch.context() as patch:  # the process of a measurement takes seconds to start
        patch.setattr(benchmark, "measure_apart", measure_here)
        patch.setattr(torch.backends.mkldnn, "enabled", True)  # is restored
        said = run()
    assert said[:4] == [f"doors {n}/4: simple_cnn, {door}, 8, 0" for n, door in enumerate(DOORS, 1)]
    lines = (out / "doors.jsonl").read_text().splitlines()
    records = [*map(json.loads, lines)]
    assert [record["layers"] for record in records] == [2] * 4
    files = records[1:3]
    for record in files:
        assert record["entries"] > 0
        assert (record["different_mask_entries"], record["layers_of_one_door"]) == (0, 0)
        assert record["largest_weight_error"] < 1e-4
    page = (out / "README.md").read_text()
    assert f"0 of {files[0]['entries']:,}" in page

    (out / "doors.jsonl").write_text("\n".join(lines[:-1]) + "\n")
    assert run()[0] == "doors 1/1: simple_cnn, other kernels, 8, 0"
    assert (out / "doors.jsonl").read_text().splitlines()[:-1] == lines[:-1]


@pytest.mark.parametrize("name", FILES)
def test_inputs_have_the_size_and_the_scale_of_the_file(name, tmp_path):
    photos = np.random.default_rng(0).integers(0, 256, (3, 3, 40, 30), dtype=np.uint8)
    photos[0] = 0
    np.savez(tmp_path / "calib.npz", images=photos)
    inputs, file = read_inputs(tmp_path, name, "calib", 2), FILES[name]
    size = (file.height, file.width)
    assert inputs.shape == ((2, *size, 3) if file.channels_last else (2, 3, *size))
    assert inputs.dtype == np.float32
    corner = inputs[0, -1, -1] if file.channels_last else inputs[0, :, -1, -1]  # no text there
    np.testing.assert_allclose(corner, -np.array(file.mean) / file.std, rtol=1e-5)


def test_layers_that_ours_leaves_dense_are_dense_again():
    dense = export_model(nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)).eval(), (4, 2, 2))
    weights = [tensor.name for tensor in dense.graph.initializer if tensor.name.endswith("weight")]

    def zeroed(*names):
        model = onnx.ModelProto.FromString(dense.SerializeToString())
        for tensor in model.graph.initializer:
            if tensor.name in names:
                tensor.CopyFrom(numpy_helper.from_array(np.zeros((4, 4, 1, 1), np.float32), tensor.name))
        return model

    assert _restored(dense, zeroed(*weights), zeroed(weights[1])) == zeroed(weights[1])


def test_classes_are_compared_as_by_hand():
    dense, other = np.array([[0.75, 0.25], [0.5, 0.5]]), np.array([[0.25, 0.75], [0.5, 0.5]])
    kl = (0.75 * np.log(3) + 0.25 * np.log(1 / 3)) / 2
    for found in (_class_distance(dense, other, 1, False), _class_distance(np.log(dense) + 7, np.log(other), 1, True)):
        assert found["kl"] == pytest.approx(kl)
        assert found["disagreement"] == 50
