"""Large ONNX files: weights stay in the file until they change, and few copies of them are in memory."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from export.audit import audit_model, load_model, map_model, tensor_value
from export.importing import OnnxNetwork, prune_onnx
from export.writing import save_model
from sparsegpt_core.errors import InputError
from sparsegpt_core.settings import PruneSettings

_WIDTH, _LAYERS = 2048, 16  # 256 MiB
_BYTES = 4 * _WIDTH * _WIDTH * _LAYERS
# As if a message of protobuf could hold less than this file.
_COMMAND = """
import sys
from export.writing import saving
saving._MAX_WEIGHT_BYTES = 100 << 20
saving._LARGE_BYTES = 50 << 20
from sparsegpt_cli.app import main
sys.exit(main())
"""


def _wide(width: int, layers: int) -> onnx.ModelProto:
    """Gemm and MatMul by turns: they read their weights as (K, C) and as (C, K)."""
    random, last = np.random.default_rng(0), "flat"
    nodes, weights = [helper.make_node("Flatten", ["x"], ["flat"])], []
    for index, rows in enumerate((*(width,) * layers, 4)):
        is_gemm = index % 2 == 0
        shape = (rows, width) if is_gemm else (width, rows)
        value = random.standard_normal(shape, np.float32) * (2 / width) ** 0.5
        weights.append(onnx.numpy_helper.from_array(value.astype(np.float32), f"w{index}"))
        options = {"transB": 1} if is_gemm else {}
        kind = "Gemm" if is_gemm else "MatMul"
        nodes.append(helper.make_node(kind, [last, f"w{index}"], [f"y{index}"], f"layer{index}", **options))
        nodes.append(helper.make_node("Relu", [f"y{index}"], [f"z{index}"]))
        last = f"z{index}"
    x, y = (helper.make_tensor_value_info(*each) for each in (("x", 1, ["N", width, 1, 1]), (last, 1, ["N", 4])))
    graph = helper.make_graph(nodes, "wide", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture
def path(tmp_path):
    """A file with two weights of 1 MiB."""
    save_model(_wide(512, 2), tmp_path / "wide.onnx", limit=0)
    return tmp_path / "wide.onnx"


def test_a_mapped_file_gives_what_a_file_in_memory_gives(path):
    mapped, whole = map_model(path), load_model(path)
    assert sum(not tensor.raw_data for tensor in mapped.graph.initializer) == 2
    for a, b in zip(mapped.graph.initializer, whole.graph.initializer, strict=True):
        np.testing.assert_array_equal(tensor_value(a), onnx.numpy_helper.to_array(b))
    assert audit_model(mapped) == audit_model(whole)
    data = path.with_name("wide.onnx.data").read_bytes()
    images = torch.randn(8, 512, 1, 1, generator=torch.Generator().manual_seed(0))
    (sparse, result), (expected, _) = (prune_onnx(each, images, PruneSettings()) for each in (path, whole))
    assert [layer.status for layer in result.layers] == ["pruned", "pruned", "dense"]
    for a, b in zip(sparse.graph.initializer, expected.graph.initializer, strict=True):
        np.testing.assert_allclose(onnx.numpy_helper.to_array(a), onnx.numpy_helper.to_array(b), atol=1e-5)
    assert path.with_name("wide.onnx.data").read_bytes() == data
    assert OnnxNetwork(mapped).digest == OnnxNetwork(whole).digest
    assert OnnxNetwork(mapped).to_onnx() == whole


@pytest.mark.parametrize("change", [os.utime, lambda data: os.truncate(data, 100), os.remove])
def test_external_data_that_changes_is_an_error(path, change):
    mapped = map_model(path)
    change(path.with_name("wide.onnx.data"))
    with pytest.raises(InputError, match=r"wide\.onnx\.data"):
        audit_model(mapped)


@pytest.mark.alone
@pytest.mark.parametrize(("more", "limit"), [([], 3.5), (["--int8"], 4)])
def test_memory_of_prune_export(tmp_path, more, limit):
    """Three times the file: the network, its graph, the graph in FP16, and the bytes of that file.

    INT8 takes more: the network, its graph, its INT8 graph, and the weights that ONNX Runtime dequantises.
    """

    def peak(width: int) -> int:
        folder = tmp_path / str(width)
        folder.mkdir()
        save_model(_wide(width, _LAYERS), folder / "wide.onnx", limit=0)
        images = np.random.default_rng(0).standard_normal((4, width, 1, 1), np.float32)
        np.savez(folder / "images.npz", images=images)
        given = ["--model", folder / "wide.onnx", "--data", f"npz:{folder}/images.npz", "--method", "magnitude"]
        return _peak(
            ["prune-export", "--layers=all", *given, *more, "--no-baseline", "--samples", "4", "--out", folder / "out"]
        )

    libraries = peak(64)
    assert 2 * _BYTES < peak(_WIDTH) - libraries < limit * _BYTES


def _peak(arguments: list[str | Path]) -> int:
    """Run a command and return the most memory, in bytes, that it used beside mapped files."""
    command = [sys.executable, "-c", _COMMAND, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        peak, done = 0, threading.Event()

        def watch() -> None:
            nonlocal peak
            while not done.wait(0.01):
                lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
                peak = max([peak, *(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon"))])

        watcher = threading.Thread(target=watch)
        watcher.start()
        errors = process.stderr.read()
        done.set()
        watcher.join()
    assert process.returncode == 0, errors
    return peak
