"""Operators from a library, as ``--ort-custom-ops`` gives it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

from export.audit import audit_model
from export.importing import OnnxNetwork, prune_onnx
from sparsegpt_core.errors import InputError, ModelError
from sparsegpt_core.settings import PruneSettings


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


def test_a_library_that_cannot_be_loaded(model, tmp_path):
    (tmp_path / "text.so").write_text("hello")
    for name in ("text.so", "missing.so"):
        with pytest.raises(InputError, match=rf"cannot load the library .*{name}"):
            OnnxNetwork(model, [str(tmp_path / name)])


def test_a_network_with_operators_of_a_library_is_pruned(model):
    library = pytest.importorskip("onnxruntime_extensions", reason="needs onnxruntime-extensions").get_library_path()
    x = torch.randn(32, 8)
    v, w = (torch.from_numpy(onnx.numpy_helper.to_array(each).copy()) for each in model.graph.initializer)
    assert torch.allclose(OnnxNetwork(model, [library])(x), (x @ v).abs() @ w, rtol=1e-4, atol=1e-5)
    sparse, result = prune_onnx(model, x, PruneSettings(include=("*",)), custom_operators=[library])
    assert [layer.status for layer in result.layers] == ["pruned", "pruned"]
    assert audit_model(sparse).sparse_layers == 2
