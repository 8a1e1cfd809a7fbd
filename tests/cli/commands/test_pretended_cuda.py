"""``prune-export --device cuda:0`` on a pretended GPU: no operation mixes devices, and the files are the CPU's."""

from __future__ import annotations

import contextlib

import onnx
import pytest
import torch
from onnx import numpy_helper

from sparsegpt_core.checkpoints import load_checkpoint, save_checkpoint
from tests.support.networks import tiny
from tests.support.pretended_cuda import pretended_cuda

MODEL = "tests.support.networks:tiny"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    about = {"model": MODEL, "image": [1, 8, 8], "num_classes": 10, "mean": [0.5], "std": [0.25]}
    save_checkpoint(path, tiny().state_dict(), about)
    return path


def constants(path):
    return {each.name: numpy_helper.to_array(each).tobytes() for each in onnx.load(path).graph.initializer}


@pytest.mark.parametrize("options", ["--int8", "--max-disagreement 50%", "--pattern 0.5"])
def test_prune_export_writes_what_it_writes_on_the_cpu(weights, cli, tmp_path, options):
    command = [
        "prune-export",
        "--layers=all",
        "--model",
        MODEL,
        "--weights",
        weights,
        "--data",
        "digits",
        "--samples",
        32,
        *options.split(),
        "--quiet",
    ]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for device, process in (("cpu", contextlib.nullcontext()), ("cuda:0", pretended_cuda())):
            with process:
                outcome = cli(*command, "--device", device, "--out", tmp_path / device[:3])
            assert outcome.code == 0, outcome.err
    finally:
        torch.set_num_threads(threads)
    on_cpu, on_gpu = (load_checkpoint(tmp_path / name / "sparse.safetensors").state for name in ("cpu", "cud"))
    assert all(torch.equal(on_gpu[name], tensor) for name, tensor in on_cpu.items())
    written = sorted(path.name for path in (tmp_path / "cpu").glob("*.onnx"))
    assert written == sorted(path.name for path in (tmp_path / "cud").glob("*.onnx"))
    for name in written:
        assert constants(tmp_path / "cud" / name) == constants(tmp_path / "cpu" / name), name
