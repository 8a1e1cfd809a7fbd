"""Values that a graph computes from constants, compared with ONNX's reference evaluator."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import NodeProto, TensorProto, helper, numpy_helper
from onnx.helper import make_node as node
from onnx.reference import ReferenceEvaluator

from export.audit import Constants
from tests.support.graphs import make_graph, make_model

WEIGHT = np.random.default_rng(0).normal(size=(4, 8, 3, 3)).astype(np.float32) * (np.arange(8) % 4 < 2)[:, None, None]
SHAPE = np.array([0, -1, 9])
SCALE = np.float32(0.02)
SCALES = np.linspace(0.01, 0.04, 4, dtype=np.float32)


def same(value, expected) -> bool:
    return value.dtype == expected.dtype and np.array_equal(value, expected)


@pytest.mark.parametrize(
    ("nodes", "tensors"),
    [
        ([node("Identity", ["w"], ["y"])], {}),
        ([node("Cast", ["w"], ["y"], to=TensorProto.FLOAT16)], {}),
        ([node("Cast", ["w"], ["y"], to=TensorProto.BFLOAT16)], {}),
        ([node("CastLike", ["w", "like"], ["y"])], {"like": np.float16(0)}),
        ([node("Transpose", ["w"], ["y"])], {}),
        ([node("Transpose", ["w"], ["y"], perm=[2, 0, 3, 1])], {}),
        ([node("Reshape", ["w", "shape"], ["y"])], {"shape": SHAPE}),
        ([node("Reshape", ["w", "shape"], ["y"])], {"shape": np.array([-1])}),
        ([node("Reshape", ["e", "shape"], ["y"], allowzero=1)], {"e": np.zeros((0, 4)), "shape": np.array([3, 0])}),
        ([node("Constant", [], ["y"], value=numpy_helper.from_array(WEIGHT))], {}),
        ([node("Constant", [], ["y"], value_floats=[0.0, 1.5])], {}),
        ([node("Constant", [], ["y"], value_float=1.5)], {}),
        ([node("Constant", [], ["y"], value_ints=[0, 7])], {}),
        ([node("Constant", [], ["y"], value_int=7)], {}),
        ([node("QuantizeLinear", ["w", "s"], ["y"])], {"s": SCALE}),
        ([node("QuantizeLinear", ["w", "s"], ["y"], output_dtype=TensorProto.INT8)], {"s": SCALE}),
        ([node("QuantizeLinear", ["w", "s", "z"], ["y"])], {"s": SCALE, "z": np.uint8(128)}),
        ([node("QuantizeLinear", ["w", "s", "z"], ["y"], axis=0)], {"s": SCALES, "z": np.zeros(4, np.int8)}),
        (
            [node("QuantizeLinear", ["w", "s", "z"], ["y"])],
            {"s": SCALE, "z": helper.make_tensor("z", TensorProto.FLOAT8E4M3FN, [], [0])},
        ),
        ([node("DequantizeLinear", ["q", "s"], ["y"])], {"s": SCALE}),
        ([node("DequantizeLinear", ["q", "s", "z"], ["y"], axis=-4)], {"s": SCALES, "z": np.array([0, 1, 2, 3], "b")}),
        ([node("DequantizeLinear", ["q", "s"], ["y"], axis=1, block_size=4)], {"s": np.ones((4, 2, 3, 3), "f") * 0.5}),
        (
            [node("DequantizeLinear", ["q4", "s"], ["y"])],
            {"s": SCALE, "q4": helper.make_tensor("q4", TensorProto.INT4, [3], [-8, 0, 7])},
        ),
    ],
)
def test_each_operator(nodes, tensors):
    graph = make_graph(nodes, {"w": WEIGHT, "q": (WEIGHT * 30).astype(np.int8), **tensors})
    expected = ReferenceEvaluator(make_model(graph)).run(None, {})[0]
    value = Constants(graph).value("y")
    assert value.shape == expected.shape
    # The evaluator dequantizes in float32 or float64; the zeros are what counts.
    np.testing.assert_array_equal(value == 0, expected == 0)
    np.testing.assert_allclose(value.astype(np.float64), expected.astype(np.float64), rtol=1e-6)


@st.composite
def chains(draw):
    """A weight and a random chain of operators behind it."""
    shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    weight = np.random.default_rng(draw(st.integers(0, 99))).integers(-2, 3, shape).astype(np.float32)
    nodes: list[NodeProto] = []
    tensors = {"t0": weight, "scale": np.float32(0.5), "zero": np.uint8(128), "int8": np.int8(0)}
    for step in range(draw(st.integers(1, 6))):
        here, there, kind = f"t{step}", f"t{step + 1}", draw(st.sampled_from("ICTRQU"))
        if kind == "T":
            perm = draw(st.permutations(range(len(shape))))
            shape = [shape[axis] for axis in perm]
            nodes.append(node("Transpose", [here], [there], perm=perm))
        elif kind == "R":
            shape = draw(st.sampled_from([[int(np.prod(shape))], [1, *shape], [-1, shape[-1]]]))
            tensors[f"shape{step}"] = np.array(shape)
            shape = list(np.empty(weight.size).reshape(shape).shape)
            nodes.append(node("Reshape", [here, f"shape{step}"], [there]))
        elif kind in "QU":
            zero = "zero" if kind == "U" else "int8"
            nodes.append(node("QuantizeLinear", [here, "scale", zero], [f"q{step}"]))
            nodes.append(node("DequantizeLinear", [f"q{step}", "scale", zero], [there]))
        elif kind == "C":
            nodes.append(node("Cast", [here], [f"half{step}"], to=TensorProto.FLOAT16))
            nodes.append(node("Cast", [f"half{step}"], [there], to=TensorProto.FLOAT))
        else:
            nodes.append(node("Identity", [here], [there]))
    return make_graph(nodes, tensors)


@given(chains())
@settings(max_examples=60, deadline=None)
def test_chains(graph):
    name = graph.output[0].name
    constants = Constants(graph)
    assert same(constants.value(name), ReferenceEvaluator(make_model(graph)).run(None, {})[0])
    assert constants.source(name) == "t0"


@pytest.mark.parametrize("kind", ["FLOAT16", "BFLOAT16", "DOUBLE", "INT8", "INT4", "FLOAT8E4M3FN", "FLOAT8E5M2"])
def test_initializers_of_other_types(kind):
    weight = helper.make_tensor("w", TensorProto.DataType.Value(kind), [2, 2], [0, 1, -2, 0])
    value = Constants(make_graph([node("Identity", ["w"], ["y"])], {"w": weight})).value("y")
    np.testing.assert_array_equal(value.astype(np.float64), [[0, 1], [-2, 0]])


@pytest.mark.parametrize(
    "broken",
    [
        node("Cast", ["w"], ["y"]),
        node("Cast", ["w"], ["y"], to=77),
        node("Cast", ["w"], ["y"], to="float"),
        node("Cast", [""], ["y"], to=1),
        node("Cast", [], ["y"], to=1),
        node("Reshape", ["w"], ["y"]),
        node("Reshape", ["w", "seven"], ["y"]),
        node("Reshape", ["w", "w"], ["y"]),
        node("Reshape", ["seven", "zeros"], ["y"]),
        node("Transpose", ["w"], ["y"], perm=[0, 1]),
        node("Transpose", ["w"], ["y"], perm=[0, 1, 2, 9]),
        node("Transpose", ["w"], ["y"], perm="0123"),
        node("QuantizeLinear", ["w"], ["y"]),
        node("QuantizeLinear", ["w", "seven"], ["y"], output_dtype=TensorProto.INT4),
        node("QuantizeLinear", ["w", "zeros"], ["y"], axis=1),
        node("DequantizeLinear", ["w", "seven"], ["y"], axis="no"),
        node("DequantizeLinear", ["w", "zeros"], ["y"], block_size=-3),
        node("CastLike", ["w"], ["y"]),
        node("Identity", ["nowhere"], ["y"]),
        node("Identity", ["y"], ["y"]),
        node("Identity", ["short"], ["y"]),
        node("Identity", ["typeless"], ["y"]),
        node("Constant", [], ["y"]),
        node("Add", ["w", "w"], ["y"]),
    ],
    ids=str,
)
def test_broken_graphs_leave_the_tensor_unknown(broken):
    short = TensorProto(name="short", data_type=TensorProto.FLOAT, dims=[4, 4], raw_data=bytes(8))
    typeless = TensorProto(name="typeless", dims=[1], raw_data=bytes(4))
    tensors = {"w": WEIGHT, "seven": np.array([7]), "zeros": np.zeros(3, int), "short": short, "typeless": typeless}
    constants = Constants(make_graph([broken], tensors))
    assert constants.value("y") is None
    assert isinstance(constants.source("y"), str)


def test_cycles_and_very_deep_chains():
    circle = [node("Identity", ["b"], ["a"]), node("Transpose", ["a"], ["b"])]
    assert Constants(make_graph(circle)).value("b") is None
    assert Constants(make_graph(circle)).source("b") in "ab"
    deep = [node("Identity", [f"t{step}"], [f"t{step + 1}"]) for step in range(5000)]
    assert Constants(make_graph(deep, {"t0": WEIGHT})).value("t5000") is None


def test_overflows_raise_no_warnings():
    graph = make_graph([node("Cast", ["w"], ["y"], to=TensorProto.FLOAT16)], {"w": np.float32([0, 1e9, np.nan])})
    np.testing.assert_array_equal(Constants(graph).value("y"), np.float16([0, np.inf, np.nan]))
    graph = make_graph([node("QuantizeLinear", ["w", "s"], ["y"])], {"w": WEIGHT, "s": np.float32(0)})
    assert Constants(graph).value("y").dtype == np.uint8


def test_an_inner_graph_sees_the_outer_one_and_hides_it():
    outer = Constants(
        make_graph(
            [node("Transpose", ["w"], ["moved"])], {"w": WEIGHT, "hidden": WEIGHT, "fed": WEIGHT, "cast": WEIGHT}
        )
    )
    inner = Constants(make_graph([node("Relu", ["w"], ["cast"])], {"hidden": WEIGHT + 1}, inputs=["fed"]), outer)
    assert same(inner.value("moved"), WEIGHT.T)
    assert inner.source("moved") == "w"
    assert same(inner.value("hidden"), WEIGHT + 1)
    assert inner.value("fed") is None
    assert inner.value("cast") is None
    assert inner.source("fed") == "fed"
