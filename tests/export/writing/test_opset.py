"""Graphs in opset 17 compute the same as in opset 18. Graphs that opset 17 cannot express are refused by name."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnxscript import ir

from export.writing.opset import to_opset_17
from sparsegpt_core.errors import ModelError

HEADER = '<ir_version: 8, opset_import: ["": 18]> g (float[N,5,8,8] x) => '

EXPRESSIBLE = {
    "mean": "(float[N,5] y) <int64[2] a = {2,3}> {y = ReduceMean<keepdims=0, noop_with_empty_axes=0>(x, a)}",
    "norm": "(float[N,1,8,8] y) <int64[1] a = {1}> {y = ReduceL2(x, a)}",
    "all": "(float y) {y = ReduceMax<keepdims=0>(x)}",
    "sum": "(float[N,5] y) <int64[2] a = {2,3}> {y = ReduceSum<keepdims=0>(x, a)}",
    "halves": "(float[N,5,4,8] y, float[N,5,4,8] z) {y, z = Split<axis=-2, num_outputs=2>(x)}",
    "parts": "(float[N,2,8,8] y, float[N,3,8,8] z) <int64[2] s = {2,3}> {y, z = Split<axis=1>(x, s)}",
    "pad": '(float[N,5,10,8] y) <int64[8] p = {0,0,1,0,0,0,1,0}> {y = Pad<mode="reflect">(x, p)}',
    "resize": "(float[N,5,16,16] y) <float[4] s = {1.0,1.0,2.0,2.0}> "
    '{y = Resize<mode="linear", antialias=0, keep_aspect_ratio_policy="stretch">(x, "", s)}',
    "pool": "(float[N,5,4,4] y) {y = LpPool<kernel_shape=[2,2], strides=[2,2], ceil_mode=0>(x)}",
}
BEYOND = {
    "operator Mish": "(float[N,5,8,8] y) {y = Mish(x)}",
    "antialias of Resize": "(float[N,5,16,16] y) <float[4] s = {1.0,1.0,2.0,2.0}> "
    '{y = Resize<mode="linear", antialias=1>(x, "", s)}',
    "num_outputs of Split": "(float[N,3,8,8] y, float[N,2,8,8] z) {y, z = Split<axis=1, num_outputs=2>(x)}",
    "input axes of Pad": '(float[N,5,10,8] y) <int64[2] p = {1,1}, int64[1] a = {2}> {y = Pad(x, p, "", a)}',
    "input axes of ReduceMean": "(float[N,5] y) {s = Shape(x) a = Slice(s, s, s) y = ReduceMean<keepdims=0>(x, a)}",
}


def run(model: onnx.ModelProto, x: np.ndarray) -> list[np.ndarray]:
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(
        None, {"x": x}
    )


def converted(body: str) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    before = onnx.parser.parse_model(HEADER + body)
    model = ir.from_proto(before)
    to_opset_17(model)
    return before, ir.to_proto(model)


@pytest.mark.parametrize("body", EXPRESSIBLE.values(), ids=EXPRESSIBLE)
def test_the_same_in_opset_17(body):
    before, after = converted(body)
    onnx.checker.check_model(after, full_check=True)
    assert [each.version for each in after.opset_import] == [17]
    x = np.random.default_rng(0).normal(size=(3, 5, 8, 8)).astype(np.float32)
    for expected, actual in zip(run(before, x), run(after, x), strict=True):
        np.testing.assert_array_equal(actual, expected)
    used = {name for node in after.graph.node for name in node.input}
    assert {each.name for each in after.graph.initializer} <= used


def test_bodies_of_if_are_converted_too():
    _, after = converted(
        "(float[N,5] y) <bool c = {1}, int64[2] a = {2,3}> {y = If (c) <"
        "then_branch = t () => (float[N,5] u) {u = ReduceMean<keepdims=0>(x, a)}, "
        "else_branch = e () => (float[N,5] v) {v = ReduceMax<keepdims=0>(x, a)}>}"
    )
    onnx.checker.check_model(after, full_check=True)


@pytest.mark.parametrize("body", BEYOND.values(), ids=BEYOND)
def test_what_opset_17_cannot_say(body, request):
    with pytest.raises(ModelError, match=f"opset 17 has no {request.node.callspec.id}$") as caught:
        converted(body)
    assert caught.value.hint
