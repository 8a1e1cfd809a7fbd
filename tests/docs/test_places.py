"""The Python examples of docs/places.md, as far as they run without a GPU."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from tests.support.paths import ROOT

BLOCKS = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "places.md").read_text(), re.DOTALL | re.MULTILINE)


def test_torch_tensorrt_receives_a_module_that_is_2_4(cli, digits_checkpoint, tmp_path, monkeypatch) -> None:
    (example,) = (block for block in BLOCKS if "torch_tensorrt" in block)
    out = tmp_path / "out" / "sparse.safetensors"
    options = ["--samples", 64, "--include", "conv2", "--include", "fc1", "--out", out]
    assert cli("prune", "--layers=all", "--weights", digits_checkpoint, *options, "--quiet").code == 0
    given: list = []

    def compile(module, ir="default", inputs=None, *, sparse_weights=False):
        given.append((module, ir, inputs, sparse_weights))
        return module

    stand_in = ModuleType("torch_tensorrt")
    stand_in.compile = compile
    monkeypatch.setitem(sys.modules, "torch_tensorrt", stand_in)
    monkeypatch.chdir(tmp_path)
    values: dict = {}
    exec(example.replace('"cuda"', '"cpu"'), values)
    ((module, ir, (images,), sparse_weights),) = given
    assert (ir, sparse_weights) == ("dynamo", True)
    assert images.shape == (8, 1, 8, 8)
    assert module(images).shape == (8, 10)
    assert values["recorded"]["pruned"] == ["conv2", "fc1"]
    for name in values["recorded"]["pruned"]:
        weight = module.get_submodule(name).weight
        assert weight.dtype == torch.half
        groups = weight.movedim(1, -1).reshape(-1, 4)  # four input channels at one position
        assert int((groups != 0).sum(dim=1).max()) == 2


@pytest.mark.skipif(importlib.util.find_spec("torch_tensorrt") is None, reason="torch-tensorrt is not installed")
def test_torch_tensorrt_has_the_keyword() -> None:
    """Reads its sources, since importing it needs a GPU's libraries."""
    spec = importlib.util.find_spec("torch_tensorrt")
    folder = Path(spec.origin).parent / "dynamo"
    assert "sparse_weights: bool" in (folder / "_settings.py").read_text()
    assert "BuilderFlag.SPARSE_WEIGHTS" in (folder / "conversion" / "_TRTInterpreter.py").read_text()


@pytest.mark.parametrize("block", BLOCKS)
def test_examples_are_python(block: str) -> None:
    compile(block, "docs/places.md", "exec")
