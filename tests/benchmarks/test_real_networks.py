"""The benchmark of real networks: on a toy network, and its readers of weights against files written here."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.measurements import read_records, write_records
from benchmarks.onnx.inputs import OnnxFile, read_photos
from benchmarks.real_networks import measure, run
from benchmarks.real_networks.architectures import HED, RRDBNet, read_ncnn
from benchmarks.real_networks.jobs import MethodJob
from benchmarks.real_networks.metrics import compare
from benchmarks.real_networks.networks import NETWORKS, RealNetwork
from benchmarks.real_networks.summary import MISSING, PAGE, VERSIONS, summarise
from sparsegpt_core.files import write_json


def toy(path: Path) -> nn.Module:
    network = nn.Sequential(
        *(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten()),
        nn.Linear(8 * 10 * 10, 5),
    )
    network.load_state_dict(torch.load(path, weights_only=True))
    return network.eval()


TOY = RealNetwork("Toy", "toy.pt", toy, OnnxFile(16, 16, classes=1, logits=True), samples=6, tested=4)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setitem(NETWORKS, "toy", TOY)
    rng = np.random.default_rng(0)
    for name, count in (("calib", 8), ("test", 4)):
        images = rng.integers(0, 256, (count, 3, 20, 20), dtype=np.uint8)
        np.savez(tmp_path / f"{name}.npz", images=images, labels=rng.integers(0, 5, count))
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten())
    torch.save(nn.Sequential(*layers, nn.Linear(800, 5)).state_dict(), tmp_path / "toy.pt")
    return tmp_path


def test_measures_continues_and_writes_the_page(folder, monkeypatch, capsys):
    def measure_here(_, part, job, *arguments):
        monkeypatch.setattr("sys.argv", ["measure", part, job, *map(str, arguments)])
        return measure._main()

    out, page = folder / "out", folder / "page.md"
    out.mkdir()

    def main(*arguments):
        command = ["run", "--files", str(folder), "--out", str(out), "--page", str(page), "--networks", "toy"]
        monkeypatch.setattr("sys.argv", [*command, *arguments])
        assert run.main() == 0
        return capsys.readouterr().out.splitlines()

    monkeypatch.setattr(run, "measure_apart", measure_here)
    arguments = ("--parts", "gains", "methods", "--methods", "magnitude", "fast")
    said = main(*arguments)
    assert [line for line in said if line.startswith("methods")] == [
        "methods 1/3: toy, magnitude, all, 0",
        "methods 2/3: toy, fast, all, 0",
        "methods 3/3: toy, fast, all, 1",
    ]
    records = read_records(out / "methods.jsonl")
    assert [record["pruned"] for record in records] == [["2", "4"]] * 3
    assert read_records(out / "gains.jsonl")[0]["prunable"] == 2

    errors = [record["error"] for record in records if record["method"] == "fast"]
    assert errors[0] != errors[1]
    low, middle, high = (f"{value:.3g}" for value in (min(errors), sum(errors) / 2, max(errors)))
    text = page.read_text()
    (row,) = (line for line in text.splitlines() if line.startswith("| `fast`"))
    assert f"| {middle} ({low} … {high}) |" in row
    assert f"| onnxsim | {MISSING} | {MISSING} |" in text
    assert main(*arguments) == [str(page)]


def test_magnitude_is_what_a_plain_loop_gives(folder):
    found = measure.measure_method(MethodJob("toy", "magnitude", "all", 0), folder, "")
    network = toy(folder / "toy.pt")
    images = torch.from_numpy(read_photos(folder, TOY.inputs, "test"))
    with torch.no_grad():
        dense = network(images).double()
        for index in (2, 4):
            weight = network[index].weight
            groups = weight.permute(0, 2, 3, 1).reshape(-1, 4)
            smallest = groups.abs().argsort(1)[:, :2]
            weight.copy_(groups.scatter(1, smallest, 0.0).reshape(8, 3, 3, 8).permute(0, 3, 1, 2))
        sparse = network(images).double()
    assert found["error"] == pytest.approx(float((dense - sparse).norm() ** 2 / dense.norm() ** 2), rel=1e-4)
    labels = np.load(folder / "test.npz")["labels"]
    assert found["top1"] == 100 * np.mean(sparse.argmax(1).numpy() == labels)
    assert found["dense_top1"] == 100 * np.mean(dense.argmax(1).numpy() == labels)


def test_a_network_without_layers_that_pay_is_a_failure_on_the_page(folder):
    record = measure.measure_method(MethodJob("toy", "balanced", "pays", 0), folder, "")
    assert "no layer can become faster" in record["failure"]
    environment = {"cpu": "Tested", "python": "", "versions": dict.fromkeys(VERSIONS, "")}
    write_json(folder / "environment.json", {"Tested": environment})
    write_records(folder / "methods.jsonl", [record | {"cpu": "Tested"}])
    page = summarise(PAGE.read_text(), folder)
    assert f"(the default): {record['failure']}." in page


def test_precisions_compare_every_file_with_the_dense_network(folder):
    files = measure.measure_precisions(MethodJob("toy", "balanced", "all", 0), folder)["files"]
    assert [*files] == ["dense", "dense int8", "fp32", "fp16", "int8"]
    assert files["dense"]["error"] == 0 < files["dense int8"]["error"] < files["fp32"]["error"]
    assert files["fp16"]["error"] != files["fp32"]["error"]
    assert files["fp16"]["error"] == pytest.approx(files["fp32"]["error"], rel=0.05)


def test_metrics_of_images_and_features():
    images = RealNetwork("", "", toy, OnnxFile(1, 1), makes_images=True)
    dense = torch.full((2, 3, 4, 4), 0.5, dtype=torch.float64)
    found = compare(images, dense, dense + 0.1, None)
    assert found == pytest.approx({"error": 0.04, "cosine": 1.0, "psnr": 20.0})
    assert compare(images, dense, -dense, None)["cosine"] == pytest.approx(-1)


def test_ncnn_weights_are_read_in_running_order(tmp_path):
    torch.manual_seed(0)
    network, data = RRDBNet(channels=3, blocks=1, growth=1), b""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            layer.weight.data = layer.weight.data.half().float()
            weight = layer.weight.detach().numpy().astype("<f2").tobytes()
            data += 0x01306B47.to_bytes(4, "little") + weight + b"\0" * (-len(weight) % 4)
            data += layer.bias.detach().numpy().tobytes()
    (tmp_path / "x.bin").write_bytes(data)
    images = torch.rand(1, 3, 5, 6)
    with torch.no_grad():
        expected = network.eval()(images)
        assert expected.shape == (1, 3, 20, 24)
        assert torch.equal(read_ncnn(tmp_path / "x.bin", RRDBNet(channels=3, blocks=1, growth=1))(images), expected)
    (tmp_path / "x.bin").write_bytes(data + b"\0" * 4)
    with pytest.raises(ValueError, match="4 bytes are left over"):
        read_ncnn(tmp_path / "x.bin", RRDBNet(channels=3, blocks=1, growth=1))


def test_hed_has_vgg16s_layers_and_a_map_of_the_images_size():
    network = HED().eval()
    with torch.no_grad():
        edges = network(torch.zeros(1, 3, 32, 48))
    assert edges.shape == (1, 1, 32, 48)
    assert sum(isinstance(layer, nn.Conv2d) for layer in network.modules()) == 13 + 6
    assert sum(each.numel() for each in network.blocks.parameters()) == 14_714_688  # of VGG-16's features


def test_the_page_shows_the_raw_results():
    text = PAGE.read_text()
    assert summarise(text, run.RESULTS) == text
    assert all(cpu in text for cpu in json.loads((run.RESULTS / "environment.json").read_text()))
