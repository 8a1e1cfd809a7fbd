"""The user's own networks and checkpoints, through the commands."""

import copy
import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from sparsegpt_cli.jobs.datasets import DataSource
from sparsegpt_cli.jobs.models import open_images
from sparsegpt_cli.sweep.checkpoints import load_network
from sparsegpt_core.checkpoints import load_checkpoint
from sparsegpt_core.user_code import import_object

FILE = """
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

class Net(nn.Sequential):
    def __init__(self, width, num_classes=1000):
        super().__init__(
            nn.Conv2d(3, width, 3), nn.ReLU(), weight_norm(nn.Conv2d(width, width, 3)), nn.ReLU(),
            nn.Flatten(), nn.Linear(16 * width, num_classes),
        )

net = Net(8, 4)
"""
DATA = ("--data", "npz:images.npz", "--quality", "fast", "--samples", 16)


@pytest.fixture
def net(tmp_path, monkeypatch):
    """The network of ``mynet.py``, in a folder with images of four classes."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mynet.py").write_text(FILE)
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (64, 3, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", images=images, labels=np.arange(64) % 4)
    return copy.deepcopy(import_object("mynet.py:net"))


def test_a_checkpoint_of_a_wrapped_network_with_averaged_weights(cli, net, tmp_path):
    """A class that needs an argument, EMA, a prefix, weight_norm, and classes that nobody names."""
    averaged = {f"module.{name}": 2 * value for name, value in net.state_dict().items()}
    torch.save({"state_dict": net.state_dict(), "state_dict_ema": averaged}, "net.pt")
    model = ("--model", "./mynet.py:Net", "--model-args", "width=8")
    outcome = cli("prune", "--layers=all", *model, "--weights", "net.pt", *DATA, "--out", "raw.safetensors")
    assert outcome.code == 0, outcome.err
    said = outcome.err
    assert "importing and running ./mynet.py:Net" in said
    assert "net.pt: using the weights in state_dict; --weights-key chooses state_dict_ema" in said
    assert "the weights have 4 classes" in said
    assert "parametrizations are replaced by their values: 2.weight" in said
    assert "the weights' names" not in said

    outcome = cli(
        "prune",
        "--layers=all",
        *model,
        "--weights",
        "net.pt",
        "--weights-key",
        "state_dict_ema",
        *DATA,
        "--out",
        "ema.safetensors",
    )
    assert outcome.code == 0, outcome.err
    assert "the weights' names fit without module." in outcome.err
    assert "--weights-key" not in outcome.err
    raw, ema = load_checkpoint(tmp_path / "raw.safetensors"), load_checkpoint(tmp_path / "ema.safetensors")
    assert torch.equal(ema.state["0.weight"], 2 * raw.state["0.weight"])  # the first convolution stays dense
    assert {*raw.state} == {"0.weight", "0.bias", "2.weight", "2.bias", "5.weight", "5.bias"}
    assert (raw.state["2.weight"] == 0).float().mean() == 0.5
    recorded = ema.metadata
    assert (recorded["num_classes"], recorded["model_args"]) == (4, ["width=8"])
    assert (raw.metadata["source_key"], recorded["source_key"]) == ("state_dict", "state_dict_ema")

    # What was pruned can be exported and fine-tuned; the arguments must be given, because a file must not choose them.
    outcome = cli("export", "--weights", "ema.safetensors", "--out", "x.onnx")
    assert (outcome.code, outcome.err.strip()) == (
        1,
        "error: the checkpoint names ./mynet.py:Net, which is code, and a file must not make code run. "
        "Give --model ./mynet.py:Net --model-args width=8 if you know that code.",
    )
    outcome = cli("export", *model[:2], "--weights", "ema.safetensors", "--out", "x.onnx")
    assert "Give --model ./mynet.py:Net --model-args width=8." in outcome.err
    outcome = cli("export", *model, "--weights", "ema.safetensors", "--out", "x.onnx")
    assert outcome.code == 0, outcome.err
    outcome = cli(
        *("finetune", *model, "--weights", "ema.safetensors", "--dense", "net.pt", "--data", "npz:images.npz"),
        *("--epochs", 1, "--out", "fine.safetensors", "--json"),
    )
    assert outcome.code == 0, outcome.err
    assert "pruned from another network" not in outcome.err
    assert load_checkpoint(tmp_path / "fine.safetensors").metadata["model_args"] == ["width=8"]


def test_an_instance_keeps_its_weights(cli, net, tmp_path):
    outcome = cli("prune", "--layers=all", "--model", "mynet.py:net", *DATA, "--out", "x.safetensors")
    assert outcome.code == 0, outcome.err
    assert "no --weights: the network keeps those of mynet.py:net, which are random unless it loads some" in outcome.err
    assert torch.equal(load_checkpoint(tmp_path / "x.safetensors").state["0.weight"], net[0].weight)


def test_onnx_files_name_no_folders_of_this_machine(cli, net, tmp_path):
    model, data = ("--model", f"{tmp_path}/mynet.py:net"), ("--data", f"npz:{tmp_path}/images.npz", *DATA[2:])
    assert cli("prune", "--layers=all", *model, *data, "--out", "x.safetensors").code == 0
    assert load_checkpoint(tmp_path / "x.safetensors").metadata["data"] == data[1]
    assert cli("export", *model, "--weights", "x.safetensors", "--out", "x.onnx").code == 0
    content = (tmp_path / "x.onnx").read_bytes()
    assert b"npz:images.npz" in content
    assert str(tmp_path).encode() not in content


def test_train_passes_the_arguments_and_classes_on(cli, net, tmp_path):
    train = ("train", "--model", "mynet.py:Net", "--data", "npz:images.npz", "--epochs", 1, "--out", "x.safetensors")
    outcome = cli(*train, "--quiet")
    assert (outcome.code, outcome.err.strip()) == (
        1,
        "error: mynet.py:Net needs the argument width. Give --model-args width=VALUE.",
    )
    outcome = cli(*train, "--model-args", "width=8")
    assert outcome.code == 0, outcome.err
    trained = load_checkpoint(tmp_path / "x.safetensors")
    assert trained.state["5.weight"].shape == (4, 128)
    assert "2.parametrizations.weight.original0" in trained.state
    assert (trained.metadata["model_args"], trained.metadata["num_classes"]) == (["width=8"], 4)
    model, _ = load_network(tmp_path / "x.safetensors", DataSource("npz:images.npz"), ("mynet.py:Net",))  # of a sweep
    assert model.metadata["model_args"] == ["width=8"]


def test_a_run_passes_lists_of_arguments_on(cli, net, tmp_path):
    content = {
        **{"model": "mynet.py:Net", "model-args": ["width=8"], "data": "npz:images.npz"},
        **{"train": {"epochs": "1"}, "prune": {"quality": "fast", "samples": "16", "layers": "all"}, "export": {}},
    }
    (tmp_path / "run.yaml").write_text(json.dumps(content))
    outcome = cli("run", "run.yaml", "--out", "out")
    assert outcome.code == 0, outcome.err
    assert (tmp_path / "out" / "sparse.onnx").is_file()


def test_images_are_prepared_as_torchvision_does_it(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "photos").mkdir()
    for number in range(2):
        Image.new("RGB", (40, 30), (number, 9, 9)).save(tmp_path / "photos" / f"{number}.png")
    said = Recorder()
    data = DataSource(f"imagefolder:{tmp_path / 'photos'}")
    opened = open_images("torchvision:inception_v3", data, {}, said)
    assert (opened.image_shape, opened.mean) == ((3, 299, 299), (0.485, 0.456, 0.406))
    assert said.texts == [
        "images of 299×299, mean 0.485,0.456,0.406, std 0.229,0.224,0.225 (default: torchvision:inception_v3's): "
        "--image-size, --mean, --std"
    ]
    open_images("mynet.py:net", data, {}, said)
    assert "(default: ImageNet's)" in said.texts[1]
    recorded = {"mean": [0.5] * 3, "std": [0.25] * 3, "image": [3, 32, 32]}
    opened = open_images("torchvision:inception_v3", data, recorded, said)
    assert (opened.image_shape, opened.mean) == ((3, 32, 32), (0.5, 0.5, 0.5))
    opened = open_images("torchvision:inception_v3", replace(data, mean=(0.1,), image_size=64), {}, said)
    assert (opened.image_shape, opened.mean, opened.std) == ((3, 64, 64), (0.1, 0.1, 0.1), (0.229, 0.224, 0.225))
    assert len(said.texts) == 3


class Recorder:
    def __init__(self):
        self.texts = []

    def say(self, message):
        self.texts.append(message)
