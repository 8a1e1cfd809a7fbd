"""A network with attention, whose FP16 file once ended the process in ONNX Runtime."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.support.networks import AttentionNet


@pytest.fixture
def model(tmp_path):
    """The options for a network with random weights and 16 labelled images."""
    torch.manual_seed(0)
    save_file(AttentionNet().state_dict(), tmp_path / "attention.safetensors")
    random = np.random.default_rng(0)
    images, labels = random.integers(0, 256, (16, 3, 32, 32), dtype=np.uint8), np.arange(16) % 4
    np.savez(tmp_path / "images.npz", images=images, labels=labels)
    return ["--model", "tests.support.networks:AttentionNet", "--weights", tmp_path / "attention.safetensors"]


def test_export_to_fp16(model, program, tmp_path):
    out = tmp_path / "out" / "attention.onnx"
    out.parent.mkdir()
    outcome = program("export", *model, "--image-size", 32, "--channels", 3, "--precision", "fp16", "--out", out)
    assert outcome.code == 0, outcome.err
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_a_head_of_zeros_is_flagged(model, cli, tmp_path):
    """Equal accuracies and a difference of 0 would otherwise look like a proof."""
    network = AttentionNet()
    torch.nn.init.zeros_(network.head.weight)
    save_file(network.state_dict(), tmp_path / "attention.safetensors")
    data = ["--data", f"npz:{tmp_path / 'images.npz'}", "--eval-data", f"npz:{tmp_path / 'evaluation.npz'}"]
    images = np.random.default_rng(1).integers(0, 256, (16, 3, 32, 32), dtype=np.uint8)
    np.savez(tmp_path / "evaluation.npz", images=images, labels=np.arange(16) % 4)
    outcome = cli(
        "prune-export", "--layers=all", *model, *data, "--quality", "fast", "--out", tmp_path / "out", "--json"
    )
    assert outcome.code == 0, outcome.err
    warnings = "\n".join(outcome.json["warnings"])
    assert "sparse.onnx: PyTorch's outputs do not depend on the images" in warnings
    assert "dense, magnitude, sparse: the outputs do not depend on the images, so accuracy proves nothing" in warnings
    report = (tmp_path / "out" / "report.html").read_text()
    assert "accuracy proves nothing" in report
    assert outcome.json["parity"]["sparse"]["outputs_vary"] is False
    out = tmp_path / "attention.onnx"
    outcome = cli("export", *model, "--image-size", 32, "--channels", 3, "--out", out)
    assert outcome.code == 0, outcome.err
    assert "not compared: constant outputs" in outcome.out
    assert "differs from PyTorch" not in outcome.out


def test_prune_export(model, cli, tmp_path):
    out = tmp_path / "out"
    outcome = cli("prune-export", "--layers=all", *model, "--data", f"npz:{tmp_path / 'images.npz'}", "--out", out)
    assert outcome.code == 0, outcome.err
    assert {"dense.fp16.onnx", "sparse.fp16.onnx", "report.html"} <= {path.name for path in out.iterdir()}
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".partial", ".unfinished")]
