"""A network of images, a vector and tokens: all commands take its data by name, from an npz file or a loader."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from onnxruntime import InferenceSession

from export.audit import read_metadata
from sparsegpt_core import PruneSettings, load_checkpoint, prune_model
from sparsegpt_core.files import sidecar_path
from sparsegpt_core.user_code import import_object

CODE = """
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

class Mixed(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.conv = nn.Conv2d(8, 16, 3, padding=1)
        self.embed = nn.Embedding(10, 16)
        self.state = nn.Linear(16, 16)
        self.mix = nn.Linear(48, 32)
        self.fc = nn.Linear(32, 5)

    def forward(self, images, vector, tokens):
        x = self.conv(self.stem(images).relu()).relu().mean((2, 3))
        x = torch.cat([x, self.state(vector).relu(), self.embed(tokens).mean(1)], 1)
        return self.fc(self.mix(x).relu())

class Samples(Dataset):
    def __init__(self): self.arrays = dict(np.load("train.npz"))
    def __len__(self): return len(self.arrays["labels"])
    def __getitem__(self, i): return {name: values[i] for name, values in self.arrays.items()}

def batches():
    arrays = [torch.from_numpy(np.load("train.npz")[name]) for name in ("images", "vector", "tokens", "labels")]
    for start in range(0, 96, 32):
        *inputs, labels = [each[start:start + 32] for each in arrays]
        yield inputs, labels
"""


def samples(count: int, seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {
        "tokens": random.integers(0, 10, (count, 6)),
        "vector": random.normal(size=(count, 16)),  # float64, as NumPy makes it
        "images": random.normal(size=(count, 3, 8, 8)).astype(np.float32),
    }


def tensors(arrays: dict[str, np.ndarray]) -> tuple[torch.Tensor, ...]:
    return tuple(torch.from_numpy(arrays[name]) for name in ("images", "vector", "tokens"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The code, a checkpoint, and training and evaluation data, which the network labels itself."""
    folder = tmp_path_factory.mktemp("several")
    (folder / "mixed.py").write_text(CODE)
    network = import_object(f"{folder / 'mixed.py'}:Mixed")().eval()
    for name, count, seed in (("train", 96, 0), ("val", 80, 1)):
        arrays = samples(count, seed)
        images, vector, tokens = tensors(arrays)
        with torch.no_grad():
            labels = network(images, vector.float(), tokens).argmax(1)
        np.savez(folder / f"{name}.npz", labels=labels.numpy(), **arrays)
    torch.save(network.state_dict(), folder / "net.pt")
    return folder


@pytest.fixture(autouse=True)
def _here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])


@pytest.fixture(scope="module")
def exported(folder: Path) -> Path:
    from sparsegpt_cli.app import main

    out = folder / "out"
    data = ["--data", f"npz:{folder / 'train.npz'}", "--eval-data", f"npz:{folder / 'val.npz'}"]
    network = ["--model", f"{folder / 'mixed.py'}:Mixed", "--weights", str(folder / "net.pt")]
    assert (
        main(["prune-export", "--layers=all", *network, *data, "--int8", "--no-baseline", "--out", str(out), "--quiet"])
        == 0
    )
    return out


def test_a_run_prunes_exports_and_compares(exported: Path, folder: Path) -> None:
    content = json.loads((exported / "prune.json").read_text())
    assert [layer["name"] for layer in content["layers"] if layer["status"] == "pruned"] == ["conv", "state", "mix"]
    assert content["data"]["inputs"] == [
        {"name": "images", "shape": [3, 8, 8], "dtype": "float32"},
        {"name": "vector", "shape": [16], "dtype": "float32"},
        {"name": "tokens", "shape": [6], "dtype": "int64"},
    ]
    assert content["accuracy"]["dense"]["top1"] == 100
    assert content["parity"]["sparse"]["relative"] < 1e-5
    assert content["parity"]["sparse.int8"]["relative"] < 0.1
    assert content["audit"]["sparse"]
    arrays = dict(np.load(folder / "val.npz"))
    session = InferenceSession(str(exported / "sparse.onnx"), providers=["CPUExecutionProvider"])
    assert [each.name for each in session.get_inputs()] == ["images", "vector", "tokens"]
    feeds = {name: arrays[name].astype(np.float32 if name != "tokens" else np.int64) for name in samples(1, 0)}
    (logits,) = session.run(None, feeds)
    top1 = 100 * float((logits.argmax(1) == arrays["labels"]).mean())
    assert content["accuracy"]["sparse"]["top1"] == pytest.approx(top1)
    assert "inputs" in read_metadata(onnx.load(str(exported / "sparse.int8.onnx")))
    assert "images" in (exported / "report.html").read_text()


def test_the_weights_are_those_of_prune_model(exported: Path, folder: Path) -> None:
    network = import_object(f"{folder / 'mixed.py'}:Mixed")().eval()
    images, vector, tokens = tensors(dict(np.load(folder / "train.npz")))
    prune_model(network, [(images, vector.float(), tokens)], PruneSettings())
    weights = load_checkpoint(exported / "sparse.safetensors").state
    for name in ("conv.weight", "state.weight", "mix.weight"):
        assert torch.equal(weights[name] == 0, network.state_dict()[name] == 0), name
        assert torch.allclose(weights[name], network.state_dict()[name], atol=1e-4), name


def test_the_onnx_file_is_pruned_to_the_same_masks(cli, exported: Path, tmp_path: Path) -> None:
    data = ("--data", "npz:train.npz", "--eval-data", "npz:val.npz", "--int8", "--no-baseline")
    outcome = cli("prune-export", "--layers=all", "--model", exported / "dense.onnx", *data, "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    assert "--data npz:train.npz --eval-data npz:val.npz" in outcome.out.partition("next: ")[2]
    assert json.loads((tmp_path / "run" / "prune.json").read_text())["parity"]["sparse.int8"]["relative"] < 0.1
    mine, theirs = (
        {each.name: numpy_helper.to_array(each) for each in onnx.load(str(folder / "sparse.onnx")).graph.initializer}
        for folder in (tmp_path / "run", exported)
    )
    for name in ("conv.weight", "mix.weight"):
        np.testing.assert_array_equal(mine[name] == 0, theirs[name] == 0)


@pytest.mark.parametrize("data", ["mixed.py:batches", "mixed.py:Samples"])
def test_a_loader_gives_the_same_inputs(cli, exported: Path, data: str) -> None:
    outcome = cli(
        "prune",
        "--layers=all",
        "--model",
        "mixed.py:Mixed",
        "--weights",
        "net.pt",
        "--data",
        data,
        "--out",
        "l.safetensors",
    )
    assert outcome.code == 0, outcome.err
    assert f"data {data}: images (3, 8, 8) float32, vector (16,) float32, tokens (6,) int64, taken as" in outcome.err
    weights, expected = (
        load_checkpoint(Path(path)).state for path in ("l.safetensors", exported / "sparse.safetensors")
    )
    for name in ("conv.weight", "state.weight", "mix.weight"):
        assert torch.equal(weights[name] == 0, expected[name] == 0), name
    Path("l.safetensors").unlink()


def test_export_without_data_and_to_int8(cli, exported: Path, tmp_path: Path) -> None:
    options = ("export", "--model", "mixed.py:Mixed", "--weights", exported / "sparse.safetensors")
    noise = cli(*options, "--out", tmp_path / "noise.onnx", "--precision", "fp16", "--json")
    assert noise.code == 0, noise.err
    int8 = cli(*options, "--out", tmp_path / "x.int8.onnx", "--precision", "int8", "--data", "npz:train.npz", "--json")
    assert int8.code == 0, int8.err
    assert cli("verify", tmp_path / "x.int8.onnx", "--fail-on", "dense", "--quiet").code == 0


def test_benchmark_and_predict(cli, exported: Path) -> None:
    files = (exported / "dense.onnx", exported / "sparse.onnx")
    outcome = cli("benchmark", *files, "--data", "npz:train.npz", "--eval-data", "npz:val.npz", "--json")
    assert outcome.code == 0, outcome.err
    content = json.loads((exported / "prune.json").read_text())
    assert outcome.json["accuracy"]["sparse"]["top1"] == content["accuracy"]["sparse"]["top1"]
    assert set(outcome.json["latency"]) == {"dense", "sparse"}
    outcome = cli("predict", files[0], "--json")
    assert outcome.json["shapes"] == {"images": [8, 3, 8, 8], "vector": [8, 16], "tokens": [8, 6]}


def test_an_engine_has_all_inputs(cli, exported: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="engines are built for real, which needs tensorrt-rtx")
    options = ("--backend", "tensorrt-rtx", "--compute-capability", "8.6", "--out", tmp_path / "m.plan")
    outcome = cli("build", exported / "sparse.fp16.onnx", *options, "--shapes", "1/4/16")
    assert outcome.code == 0, outcome.err
    inputs = json.loads(sidecar_path(tmp_path / "m.plan").read_text())["inputs"]
    assert {each["name"]: each["shapes"][2] for each in inputs} == {
        "images": [16, 3, 8, 8],
        "vector": [16, 16],
        "tokens": [16, 6],
    }
