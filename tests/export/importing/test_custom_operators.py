"""Operators from a library, as ``--ort-custom-ops`` gives it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

from export import onnxruntime_session
from export.audit import audit_model
from export.importing import OnnxNetwork, prune_onnx
from export.onnxruntime_session import load_operators
from sparsegpt_core.errors import InputError, ModelError
from sparsegpt_core.settings import PruneSettings


@pytest.fixture(autouse=True)
def libraries(monkeypatch):
    monkeypatch.setattr(onnxruntime_session, "_LIBRARIES", [])


@pytest.fixture
def model():
    """Two matrices with an operator of onnxruntime-extensions between them: it gives the negative part and the rest."""
    parsed = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["": 17, "ai.onnx.contrib": 1]>
        g (float[n, 8] x) => (float[n, 8] y)
        { a = MatMul (x, v)  low, high = ai.onnx.contrib.NegPos (a)  b = Sub (high, low)  y = MatMul (b, w) }
    """)
    chance = np.random.default_rng(0)
    for name in ("v", "w"):
        values = chance.standard_normal((8, 8)).astype(np.float32)
        parsed.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    return parsed


def test_an_unknown_operator_asks_for_its_library(model):
    with pytest.raises(ModelError, match=r"NegPos.* is not a registered function/op") as raised:
        OnnxNetwork(model)
    assert raised.value.hint == "Give `ort_custom_ops`, the operator's library."


def test_a_library_that_cannot_be_loaded(tmp_path):
    (tmp_path / "text.so").write_text("hello")
    for name in ("text.so", "missing.so"):
        with pytest.raises(InputError, match=rf"cannot load the library .*{name}"):
            load_operators(str(tmp_path / name))


def test_a_network_with_operators_of_a_library_is_pruned(model):
    library = pytest.importorskip("onnxruntime_extensions", reason="needs onnxruntime-extensions").get_library_path()
    load_operators(library)
    x = torch.randn(32, 8)
    v, w = (torch.from_numpy(onnx.numpy_helper.to_array(each).copy()) for each in model.graph.initializer)
    assert torch.allclose(OnnxNetwork(model)(x), (x @ v).abs() @ w, rtol=1e-4, atol=1e-5)
    sparse, result = prune_onnx(model, x, PruneSettings(include=("*",)), custom_operators=[library])
    assert [layer.status for layer in result.layers] == ["pruned", "pruned"]
    assert audit_model(sparse).sparse_layers == 2


def test_every_file_of_a_run_has_them(model, cli, tmp_path):
    """The files are compared, converted and evaluated in sessions of their own."""
    library = pytest.importorskip("onnxruntime_extensions", reason="needs onnxruntime-extensions").get_library_path()
    shape = (8, 3, 1, 1)
    kernel = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(kernel, "kernel"))
    model.graph.node.insert(0, onnx.helper.make_node("Flatten", ["pooled"], ["x"]))
    model.graph.node.insert(0, onnx.helper.make_node("GlobalAveragePool", ["features"], ["pooled"]))
    model.graph.node.insert(0, onnx.helper.make_node("Conv", ["images", "kernel"], ["features"]))
    model.graph.input[0].CopyFrom(onnx.helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, ["n", 3, 8, 8]))
    onnx.save(model, tmp_path / "net.onnx")
    for name, seed in (("train", 2), ("val", 3)):
        np.savez(tmp_path / f"{name}.npz", images=np.random.default_rng(seed).random((48, 3, 8, 8), np.float32))
    data = ("--data", f"npz:{tmp_path / 'train.npz'}", "--eval-data", f"npz:{tmp_path / 'val.npz'}")
    options = ("--ort-custom-ops", library, "--include", "*", "--out", tmp_path / "out")
    outcome = cli("prune-export", "--layers=all", "--model", tmp_path / "net.onnx", *data, *options)
    assert outcome.code == 0, outcome.err
    assert (tmp_path / "out" / "sparse.fp16.onnx").exists()
