"""Shapes that the graph itself computes, against a run of ONNX Runtime."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper

from deploy.graph import read_workloads
from deploy.graph.tensors import InferredTensor, infer_tensors
from deploy.predict import predict

# PyTorch exports F.pad so: pads in its own order, completed with zeros, reversed and transposed. The pads of the second
# convolution are TensorFlow's "same", computed from the size of its input.
COMPUTED_PADS = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[N, 3, 15, H] x) => (float[N, 10] y)
    <int64[2] tail = {-1, 0}, int64[2] pairs = {-1, 2}, int64[1] last = {-1}, int64[1] first = {0},
     int64[1] least = {-9223372036854775807}, int64 axis = {2}, int64 one = {1}, int64 two = {2}, int64 three = {3},
     int64[6] even = {0, 0, 0, 0, 0, 0}>
    {
        given = Constant <value_ints = [3, 2, 1, 0, 0, 0]> ()
        count = Constant <value_ints = [2]> ()
        zeros = ConstantOfShape <value = int64[1] {0}> (count)
        flat = Concat <axis = 0> (given, zeros)
        rows = Reshape (flat, pairs)
        reversed = Slice (rows, last, least, first, last)
        columns = Transpose <perm = [1, 0]> (reversed)
        joined = Reshape (columns, last)
        pads = Cast <to = 7> (joined)
        padded = Pad (x, pads)
        a = Conv <strides = [2, 2]> (padded, w1)
        size = Shape (a)
        height = Gather (size, axis)
        less = Sub (height, one)
        steps = Div (less, two)
        length = Mul (steps, two)
        needed = Add (length, three)
        more = Sub (needed, height)
        column = Unsqueeze (more, first)
        same = Concat <axis = 0> (even, column, column)
        wide = Pad (a, same)
        b = Conv <strides = [2, 2]> (wide, w2)
        mean = GlobalAveragePool (b)
        features = Flatten (mean)
        y = Gemm (features, w3)
    }"""
SHAPE = (4, 3, 15, 20)


@pytest.fixture
def model() -> onnx.ModelProto:
    model = onnx.parser.parse_model(COMPUTED_PADS)
    random = np.random.default_rng(0)
    for name, shape in {"w1": (64, 3, 3, 3), "w2": (256, 64, 3, 3), "w3": (256, 10)}.items():
        model.graph.initializer.append(numpy_helper.from_array(random.standard_normal(shape, np.float32), name))
    return model


def computed(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """What ONNX Runtime computes, by the names of all tensors."""
    asked = onnx.ModelProto()
    asked.CopyFrom(model)
    names = [name for node in model.graph.node for name in node.output]
    del asked.graph.output[:]
    asked.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    session = onnxruntime.InferenceSession(asked.SerializeToString(), providers=["CPUExecutionProvider"])
    return dict(zip(names, session.run(names, {"x": np.ones(SHAPE, np.float32)}), strict=True))


def test_pads_that_the_graph_computes(model: onnx.ModelProto) -> None:
    values, found = computed(model), infer_tensors(model, {"x": SHAPE})
    assert values["a"].shape == (4, 64, (15 + 1 - 3) // 2 + 1, (20 + 3 + 2 - 3) // 2 + 1)
    assert {name: found[name].shape for name in values} == {name: value.shape for name, value in values.items()}
    types = {name: onnx.helper.np_dtype_to_tensor_dtype(value.dtype) for name, value in values.items()}
    assert {name: found[name].type for name in values} == types


def test_their_layers_have_work_and_a_gain(model: onnx.ModelProto, tmp_path: Path) -> None:
    values, work = computed(model), read_workloads(model, {"x": SHAPE})
    assert work["a"].flops == 2 * values["a"].size * 3 * 9
    assert work["b"].flops == 2 * values["b"].size * 64 * 9
    onnx.save(model, str(tmp_path / "net.onnx"))
    assert predict(tmp_path / "net.onnx", {"x": (SHAPE,) * 3}, "a100").bound is not None


def test_without_onnxruntime_they_stay_unknown(model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    found = infer_tensors(model, {"x": SHAPE})
    assert found["rows"].shape == (4, 2)
    assert {found[name].shape for name in ("padded", "a", "wide", "b", "y")} == {None}


def test_operators_that_onnx_does_not_know() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1]>
        g (float16[N, 8] x) => (float16[N, 8] y) { a = com.microsoft.QuickGelu(x)  y = Relu(a) }"""
    )
    found = infer_tensors(model, {"x": (2, 8)})
    assert found["a"] == found["y"] == InferredTensor((2, 8), TensorProto.FLOAT16)


def test_sizes_that_depend_on_data_stay_unknown() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]> g (float[N] x) => (int64[1, M] y) { y = NonZero(x) }"""
    )
    assert infer_tensors(model, {"x": (5,)})["y"].shape is None
