"""Wrong weights and models."""

import json
import struct
import warnings
import zipfile

import pytest
import safetensors.torch
import torch
from torch import nn

from sparsegpt_core.checkpoints import load_checkpoint, save_checkpoint
from tests.support.error_rows import check, save_good, spoil
from tests.support.error_rows.weights import ROWS

FACTORIES = """
import torch
def boom(): raise ValueError("bad luck")
def leave(): raise SystemExit(7)
def number(): return 5
def greedy(a): return 1
def linear(): return torch.nn.Linear(3, 4)
network = torch.nn.Linear(3, 4)
"""


def with_floats(change, state):
    return {name: change(value) if value.is_floating_point() else value for name, value in state.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    spoil(folder, ("safetensors", "pt"))
    save_good(folder / "good.safetensors")
    whole, good = (folder / "good.safetensors").read_bytes(), load_checkpoint(folder / "good.safetensors")
    (folder / "half.safetensors").write_bytes(whole[: len(whole) // 2])
    (folder / "header.safetensors").write_bytes(struct.pack("<Q", 1 << 40) + b"{}")
    state = good.state
    for name, tensors in {
        "nan": {**state, "conv2.weight": torch.full_like(state["conv2.weight"], float("nan"))},
        "int8": with_floats(lambda value: value.to(torch.int8), state),
        "complex": with_floats(lambda value: value.to(torch.complex64), state),
        "large": with_floats(lambda value: value.double() * 1e300, state),
        "narrow": {**state, "conv1.weight": state["conv1.weight"][:-1]},
        "none": {},
    }.items():
        save_checkpoint(folder / f"{name}.safetensors", tensors, good.metadata)
    for name, notes in {"list": [1], "classes": {**good.metadata, "num_classes": "ten"}}.items():
        content = safetensors.torch.save(state, {"sparsegpt_trt": json.dumps(notes)})
        (folder / f"{name}.safetensors").write_bytes(content)
    for name, content in {
        "other": nn.Linear(2, 2).state_dict(),
        "whole": nn.Linear(2, 2),
        "sparse": {**state, "conv1.weight": state["conv1.weight"].to_sparse()},
        "meta": {**state, "conv1.weight": state["conv1.weight"].to("meta")},
        "bomb": {**state, "conv1.weight": torch.zeros(1).expand(1 << 40)},
        "numbers": {"a": 1},
        "averaged": {"model": state, "model_ema": state, "epoch": 3},
        "several": {"params": state, "params_ema": state},
    }.items():
        torch.save(content, folder / f"{name}.pt")
    (folder / "net.onnx").touch()
    zipfile.ZipFile(folder / "zip.pt", "w").close()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)), folder / "script.pt")
    (folder / "factories_of_test.py").write_text(FACTORIES)
    (folder / "syntax_of_test.py").write_text("def (")
    (folder / "leaves_of_test.py").write_text("raise SystemExit(3)")
    return folder


@pytest.mark.parametrize("row", [row for row in ROWS if not row.test], ids=str)
def test_a_row(cli, folder, monkeypatch, row):
    check(row, cli, folder, monkeypatch)
