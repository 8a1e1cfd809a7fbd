"""Wrong ONNX files, plans and their records."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import onnx
import onnxruntime
import pytest

from deploy.machine import TENSORRT_PROVIDER
from tests.support.error_rows import check, save_good, spoil
from tests.support.error_rows.onnx import ROWS
from tests.support.graphs import NOTHING, edited, model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("onnx")
    spoil(folder, ("onnx", "plan", "json", "npz"))
    weight = NOTHING["w"]
    unknown, future, custom, lacking = model(), model(), model(), model()
    unknown.graph.node[1].op_type = "Nonsense"
    future.opset_import[0].version = 999
    custom.graph.node[1].domain = "vendor"
    custom.opset_import.append(onnx.helper.make_opsetid("vendor", 1))
    del lacking.graph.node[1].input[1]
    for name, content in {
        "good": model(),
        "nan": model(np.full_like(weight, np.nan)),
        "shape": model(weight[1:]),
        "double": model(weight.astype(float)),
        "integers": model(dtype=onnx.TensorProto.INT64),
        "bomb": model(onnx.TensorProto(name="w", data_type=1, dims=[1 << 20, 1 << 20], raw_data=b"1234")),
        "unknown": unknown,
        "future": future,
        "custom": custom,
        "lacking": lacking,
        "text_input": model(dtype=onnx.TensorProto.STRING),
        "two": two_matrices(),
        "nan_weight": edited(two_matrices(), "w", lambda weight: weight.put(0, np.nan)),
        "nan_constant": added_constant(np.nan),
        "no_layer": without_layers(),
        "pair": pair(),
    }.items():
        onnx.save(content, str(folder / f"{name}.onnx"))
    save_good(folder / "good.safetensors")
    np.savez(folder / "rgb.npz", images=np.zeros((8, 3, 8, 8), np.float32))
    whole = (folder / "good.onnx").read_bytes()
    (folder / "half.onnx").write_bytes(whole[: len(whole) // 2])
    onnx.save(model(), str(folder / "gone.onnx"), save_as_external_data=True, location="gone.bin", size_threshold=0)
    (folder / "gone.bin").unlink()
    (folder / "good.html").write_text("")
    for run, width in (("run", 4), ("other_run", 8)):
        (folder / run).mkdir()
        (folder / run / "prune.json").write_text(json.dumps({"layers": [{"name": "conv", "shape": [8, width]}]}))
    digest = hashlib.sha256(b"plan").hexdigest()
    for name, record in {
        "bare": None,
        "other": {"sha256": "0" * 64},
        "list": [],
        "short": {"sha256": digest, "bytes": 4},
        "cut": "{",
    }.items():
        (folder / f"{name}.plan").write_bytes(b"plan")
        if record is not None:
            text = record if isinstance(record, str) else json.dumps(record)
            (folder / f"{name}.plan.json").write_text(text)
    return folder


def two_matrices():
    """A network for digits whose first matrix can be pruned."""
    two = model()
    two.graph.node[1].output[0] = "h"
    two.graph.node.append(onnx.helper.make_node("Gemm", ["h", "v"], ["y"], name="head"))
    two.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((10, 10), np.float32), "v"))
    return two


def added_constant(value):
    """The same with a number that is added to its outputs."""
    two = two_matrices()
    two.graph.node[2].output[0] = "h2"
    two.graph.node.append(onnx.helper.make_node("Add", ["h2", "c"], ["y"], name="add"))
    two.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(value), "c"))
    return two


def without_layers():
    """Images of digits plus a number."""
    plain = added_constant(1)
    del plain.graph.node[:3]
    plain.graph.node[0].input[0] = "x"
    return plain


def pair():
    """The same with a second input."""
    two = two_matrices()
    two.graph.input.append(onnx.helper.make_tensor_value_info("more", onnx.TensorProto.FLOAT, ["N", 10]))
    two.graph.node[2].input.append("more")
    return two


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_row(cli, folder, monkeypatch, row):
    if row.command.startswith("build") and "truncated or not an ONNX" not in row.line:
        pytest.importorskip("polygraphy")
    if "no TensorrtExecutionProvider" in row.line and TENSORRT_PROVIDER in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has the provider")
    check(row, cli, folder, monkeypatch)
