"""The inputs and outputs in a plan's sidecar."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from deploy.builder import BuildSettings, build_engine
from deploy.graph import TensorSignature, graph_signature, read_graph, resolve_shapes
from sparsegpt_core.files import sidecar_path


def saved(path: Path, inputs: list, outputs: list) -> Path:
    nodes = [helper.make_node("Relu", [inputs[0].name], [output.name]) for output in outputs]
    graph = helper.make_graph(nodes, "g", inputs, outputs)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def value(name: str, shape: tuple | None, kind: int = TensorProto.FLOAT16) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def test_shapes_follow_names(tmp_path: Path) -> None:
    outputs = [value("y", ("batch", 10)), value("boxes", ("found", 4)), value("z", None), value("w", (None, "batch"))]
    graph = read_graph(saved(tmp_path / "m.onnx", [value("x", ("batch", 3, 8, 8))], outputs))
    profile = resolve_shapes(graph.inputs, (1, 4, 24))
    inputs, found = graph_signature(graph, profile)
    assert inputs == [TensorSignature("x", "FLOAT16", ("batch", 3, 8, 8), profile["x"])]
    assert found == [
        TensorSignature("y", "FLOAT16", ("batch", 10), ((1, 10), (4, 10), (24, 10))),
        TensorSignature("boxes", "FLOAT16", ("found", 4), ((None, 4), (None, 4), (None, 4))),
        TensorSignature("z", "FLOAT16", None, None),
        TensorSignature("w", "FLOAT16", (None, "batch"), ((None, 1), (None, 4), (None, 24))),
    ]


def test_several_inputs_and_fixed_sizes(tmp_path: Path) -> None:
    given = [value("x", (2, 3), TensorProto.FLOAT), value("index", (2,), TensorProto.INT64)]
    graph = read_graph(saved(tmp_path / "m.onnx", given, [value("y", (2, 3), TensorProto.FLOAT)]))
    inputs, outputs = graph_signature(graph, resolve_shapes(graph.inputs, None))
    assert [(each.name, each.dtype, each.dims) for each in inputs] == [("x", "FLOAT", (2, 3)), ("index", "INT64", (2,))]
    assert outputs[0].shapes == ((2, 3),) * 3


def test_the_sidecar_records_the_signature(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="engines are built for real, which needs tensorrt-rtx")
    model = saved(tmp_path / "m.onnx", [value("x", ("batch", 8))], [value("y", ("batch", 8))])
    build_engine(
        model, tmp_path / "m.plan", BuildSettings(backend="tensorrt-rtx", compute_capability="8.6", shapes=(1, 2, 4))
    )
    record = json.loads(sidecar_path(tmp_path / "m.plan").read_text())
    expected = {"dtype": "FLOAT16", "dims": ["batch", 8], "shapes": [[1, 8], [2, 8], [4, 8]]}
    assert record["inputs"] == [{"name": "x", **expected}]
    assert record["outputs"] == [{"name": "y", **expected}]
