"""The audit of hand-made graphs, compared with a loop over all groups and with Polygraphy's checker."""

import itertools
import json
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.helper import make_node as node
from polygraphy.tools.sparse import SparsityPruner

from export.audit import audit_model, read_metadata, write_metadata
from sparsegpt_core.errors import CheckFailedError
from sparsegpt_core.patterns import NM
from sparsegpt_core.reasons import Reason
from tests.support.graphs import make_graph, make_model
from tests.support.strategies import brute_force_violations

RNG = np.random.default_rng(0)
TWO_OF_FOUR = NM(2, 4)


def dense(*shape) -> np.ndarray:
    return RNG.uniform(1, 2, shape).astype(np.float32)


def sparse(*shape, axis=1, pattern=TWO_OF_FOUR) -> np.ndarray:
    """Random weights whose first N of every M along ``axis`` are not zero."""
    keep = np.arange(shape[axis]) % pattern.m < pattern.n
    return dense(*shape) * keep.reshape([-1 if each == axis else 1 for each in range(len(shape))])


def audit(nodes, tensors, pattern=None, metadata=None):
    model = make_model(make_graph(nodes, tensors, inputs=["x"]))
    if metadata is not None:
        write_metadata(model, metadata)
    return audit_model(model, pattern, name="test")


def only(nodes, tensors, pattern=None):
    (layer,) = audit(nodes, tensors, pattern).layers
    return layer


def conv(weight="w", name="conv", **attributes):
    return node("Conv", ["x", weight], [f"y_{name}"], name=name, **attributes)


@pytest.mark.parametrize("kernel", [(3,), (3, 2), (2, 3, 2)])
def test_convolutions_of_one_two_and_three_dimensions(kernel):
    weight = sparse(3, 12, *kernel)
    layer = only([conv()], {"w": weight})
    assert (layer.name, layer.weight, layer.op) == ("conv", "w", "Conv")
    assert (layer.shape, layer.dtype, layer.axis) == (weight.shape, "float32", 1)
    assert (layer.violations, layer.is_sparse, layer.eligible, layer.reason) == (0, True, True, None)
    assert layer.first_violation is None

    last = [size - 1 for size in kernel]
    weight[(2, slice(4, 8), *last)] = 1
    layer = only([conv()], {"w": weight})
    assert (layer.violations, layer.is_sparse, layer.eligible, layer.reason) == (1, False, False, Reason.NOT_NM)
    assert layer.first_violation == {"k": 2, "c_group": 1, **dict(zip("rst", last, strict=False))}


def test_grouped_depthwise_and_transposed_convolutions_are_never_eligible():
    grouped = only([conv(group=2)], {"w": sparse(4, 8, 3, 3)})
    assert (grouped.groups, grouped.is_sparse, grouped.eligible, grouped.reason) == (2, True, False, Reason.GROUPED)
    depthwise = only([conv(group=8)], {"w": dense(8, 1, 3, 3)})
    assert (depthwise.violations, depthwise.is_sparse, depthwise.reason) == (None, False, Reason.GROUPED)
    weight = sparse(8, 3, 2, 2, axis=0)
    weight[4:8, 2, 0, 1] = 1
    transposed = only([node("ConvTranspose", ["x", "w"], ["y"])], {"w": weight})
    assert (transposed.axis, transposed.violations, transposed.reason) == (0, 1, Reason.TRANSPOSED)
    assert transposed.first_violation == {"c_group": 1, "k": 2, "r": 0, "s": 1}


@pytest.mark.parametrize("flipped", [0, 1])
def test_gemm_runs_along_its_reduction_axis(flipped):
    weight = sparse(8, 4, axis=0)  # (C, K): the other axis is dense
    layer = only([node("Gemm", ["x", "w"], ["y"], transB=flipped)], {"w": weight.T if flipped else weight})
    assert (layer.axis, layer.is_sparse, layer.eligible) == (flipped, True, True)
    wrong = only([node("Gemm", ["x", "w"], ["y"], transB=flipped)], {"w": weight if flipped else weight.T})
    assert (wrong.violations, wrong.reason) == (4, Reason.NOT_NM)
    assert wrong.first_violation == {"k": 0, "c_group": 0}


def test_matmul():
    product = node("MatMul", ["x", "w"], ["y"])
    assert only([product], {"w": sparse(8, 3, axis=0)}).eligible
    batched = sparse(2, 8, 3, axis=1)
    assert only([product], {"w": batched}).eligible
    batched[1, 4:8, 2] = 1
    assert only([product], {"w": batched}).first_violation == {"b0": 1, "c_group": 1, "k": 2}
    assert only([product], {"w": sparse(8, axis=0)}).eligible
    assert only([product], {"w": dense(8)}).first_violation == {"c_group": 0}
    assert only([product], {"w": np.float32(1)}).reason == Reason.CHANNELS_NOT_MULTIPLE


def test_a_weight_that_is_not_the_constant_second_operand():
    both = only([node("MatMul", ["x", "x"], ["y"])], {})
    assert (both.shape, both.dtype, both.violations, both.reason) == (None, None, None, Reason.NOT_CONSTANT)
    assert only([node("MatMul", ["w", "x"], ["y"])], {"w": sparse(3, 8)}).reason == Reason.NOT_CONSTANT
    computed = [node("Mul", ["w", "x"], ["scaled"]), conv("scaled")]
    assert only(computed, {"w": sparse(4, 4, 1, 1)}).reason == Reason.NOT_CONSTANT


@pytest.mark.parametrize(("channels", "pattern"), [(3, NM(2, 4)), (6, NM(2, 4)), (12, NM(4, 8)), (4, NM(1, 3))])
def test_channels_that_are_not_a_multiple_of_m(channels, pattern):
    layer = only([conv()], {"w": np.zeros((2, channels, 1, 1), "f")}, pattern)
    assert (layer.violations, layer.is_sparse, layer.reason) == (None, False, Reason.CHANNELS_NOT_MULTIPLE)


@pytest.mark.parametrize("pattern", [NM(1, 4), NM(2, 4), NM(4, 8)], ids=str)
def test_patterns(pattern):
    weight = sparse(4, 16, 3, 3, pattern=pattern)
    assert only([conv()], {"w": weight}, pattern).is_sparse
    weight[1, pattern.m + pattern.n, 2, 0] = 1
    layer = only([conv()], {"w": weight}, pattern)
    assert (layer.violations, layer.first_violation) == (1, {"k": 1, "c_group": 1, "r": 2, "s": 0})


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_violations_equal_a_walk_over_all_groups(data):
    pattern = data.draw(st.sampled_from([NM(1, 4), NM(2, 4), NM(4, 8), NM(1, 2)]))
    kernel = data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    shape = [data.draw(st.integers(1, 3)), pattern.m * data.draw(st.integers(1, 2)), *kernel]
    density = data.draw(st.sampled_from([0.1, 0.3, 0.6]))
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    weight = (rng.random(shape) < density).astype(np.float32)
    layer = only([conv()], {"w": weight}, pattern)
    expected = brute_force_violations(weight, pattern, axis=1)
    assert layer.violations == len(expected)
    assert layer.is_sparse == layer.eligible == (not expected and bool(weight.any()))
    first = dict(zip(("k", "c_group", "r", "s", "t"), min(expected), strict=False)) if expected else None
    assert layer.first_violation == first


SOURCES = {
    "Constant": ([node("Constant", [], ["w"], value=numpy_helper.from_array(sparse(4, 8, 3, 3)))], {}),
    "Constant of floats": (
        [node("Constant", [], ["c"], value_floats=sparse(2, 8).ravel()), node("Reshape", ["c", "shape"], ["w"])],
        {"shape": np.array([2, 8, 1])},
    ),
    "Cast": ([node("Cast", ["i"], ["w"], to=TensorProto.FLOAT16)], {"i": sparse(4, 8, 3, 3)}),
    "Transpose": ([node("Transpose", ["i"], ["w"], perm=[3, 0, 2, 1])], {"i": sparse(8, 2, 3, 4, axis=0)}),
    "Identity and Reshape": (
        [node("Identity", ["i"], ["n"]), node("Reshape", ["n", "shape"], ["w"])],
        {"i": sparse(4, 8), "shape": np.array([0, -1, 1, 1])},
    ),
    "int8 per tensor": (
        [node("QuantizeLinear", ["i", "s", "z"], ["q"]), node("DequantizeLinear", ["q", "s", "z"], ["w"])],
        {"i": sparse(4, 8, 3, 3), "s": np.float32(0.02), "z": np.int8(0)},
    ),
    "int8 per axis behind a Cast": (
        [node("Cast", ["i"], ["f"], to=1), node("DequantizeLinear", ["f8", "s", "z"], ["w"], axis=0)],
        {"i": dense(1), "f8": sparse(4, 8, 3, 3).astype("b"), "s": np.full(4, 0.1, "f"), "z": np.zeros(4, "b")},
    ),
    "uint8 with its zero at 128": (
        [node("QuantizeLinear", ["i", "s", "z"], ["q"]), node("DequantizeLinear", ["q", "s", "z"], ["w"])],
        {"i": sparse(4, 8, 3, 3), "s": np.float32(0.02), "z": np.uint8(128)},
    ),
    "float16": ([], {"w": sparse(4, 8, 3, 3).astype(np.float16)}),
    "bfloat16": ([], {"w": helper.make_tensor("w", TensorProto.BFLOAT16, (4, 8, 3, 3), sparse(4, 8, 3, 3).ravel())}),
}


@pytest.mark.parametrize(("nodes", "tensors"), SOURCES.values(), ids=SOURCES)
def test_sparse_weights_from_anywhere(nodes, tensors):
    layer = only([*nodes, conv()], tensors)
    assert (layer.shape[1], layer.violations, layer.eligible) == (8, 0, True)


@pytest.mark.parametrize(
    ("source", "dtype"),
    [
        ("int8 per tensor", "int8"),
        ("int8 per axis behind a Cast", "int8"),
        ("uint8 with its zero at 128", "uint8"),
        ("float16", "float16"),
        ("Cast", "float16"),
    ],
)
def test_a_quantised_weight_has_the_type_of_its_integers(source, dtype):
    nodes, tensors = SOURCES[source]
    assert only([*nodes, conv()], tensors).dtype == dtype
    turned = [*nodes, node("Identity", ["w"], ["v"]), node("Transpose", ["v"], ["u"], perm=[0, 1, 3, 2]), conv("u")]
    assert only(turned, tensors).dtype == dtype


def test_an_all_zero_weight_is_no_success():
    zeros = {"w": np.zeros((4, 8, 1, 1), "f")}
    result = audit([conv()], zeros)
    (layer,) = result.layers
    assert (layer.violations, layer.is_sparse, layer.eligible, layer.reason) == (0, False, False, Reason.ALL_ZERO)
    assert (result.sparse_layers, result.eligible_layers, result.failures("dense")) == (0, 0, [layer])
    result.require_sparse(["conv"], "FP32")  # a layer whose calibration inputs are all dead is pruned to zeros
    on_purpose = audit([conv()], zeros, metadata={"dense": {"conv": "EXCLUDED"}})
    assert on_purpose.layers[0].reason == Reason.EXCLUDED
    assert not on_purpose.failures("dense")


def test_a_wrong_zero_point_breaks_every_group():
    tensors = {"q": sparse(4, 8, 3, 3).astype(np.int8) * 3, "s": np.float32(0.1), "z": np.int8(5)}
    layer = only([node("DequantizeLinear", ["q", "s", "z"], ["w"]), conv()], tensors)
    assert (layer.violations, layer.reason) == (4 * 2 * 9, Reason.NOT_NM)


def test_layers_in_the_bodies_of_if_and_loop_use_weights_around_them():
    def body(name, *inputs):
        nodes = [node("Identity", ["w"], [f"{name}_w"]), conv(f"{name}_w", name)]
        return make_graph(nodes, inputs=inputs)

    branch = node("If", ["x"], ["y"], then_branch=body("then"), else_branch=body("else"))
    loop = node("Loop", ["", "", "x"], ["z"], body=body("loop", "step", "go", "state"))
    layers = audit([branch, loop], {"w": sparse(4, 8, 1, 1)}).layers
    assert {layer.name for layer in layers} == {"then", "else", "loop"}
    assert all(layer.eligible and layer.weight == "w" for layer in layers)


def test_layers_in_local_functions_count():
    inner = helper.make_function(
        "local", "Block", ["a", "b"], ["c"], [node("Conv", ["a", "b"], ["c"])], [helper.make_opsetid("", 21)]
    )
    model = make_model(make_graph([node("Block", ["x", "w"], ["y"], domain="local")], {"w": dense(4, 8, 1, 1)}, ["x"]))
    model.functions.append(inner)
    model.opset_import.append(helper.make_opsetid("local", 1))
    (layer,) = audit_model(model).layers
    assert (layer.weight, layer.reason) == ("w", Reason.NOT_NM)


def test_the_recorded_pattern_and_dense_layers_are_used():
    tensors = {"w": sparse(4, 8, 1, 1, pattern=NM(1, 4)), "d": dense(4, 8, 1, 1), "d3": dense(4, 3, 1, 1)}
    nodes = [conv("w", "a"), conv("d", "b"), conv("d", "b#2"), conv("d3", "c"), conv("d", "left")]
    noted = {"pattern": "1:4", "dense": {"b": "FIRST_LAYER", "c": "EXCLUDED", "left": "FROM_THE_FUTURE", "w": "NOT_NM"}}
    result = audit(nodes, tensors, metadata=noted)
    assert result.pattern == "1:4"
    assert [layer.reason for layer in result.layers] == [
        None, Reason.FIRST_LAYER, Reason.FIRST_LAYER, Reason.CHANNELS_NOT_MULTIPLE, Reason.NOT_NM,
    ]  # fmt: skip
    assert [layer.name for layer in result.failures("dense")] == ["left"]
    assert [layer.name for layer in result.failures("ineligible")] == ["b", "b#2", "c", "left"]
    assert audit(nodes, tensors, NM(2, 4), noted).pattern == "2:4"


@pytest.mark.parametrize("noted", [{}, {"pattern": "0.5"}, {"pattern": 7, "dense": []}, {"dense": {"conv": ["x"]}}])
def test_malformed_metadata_is_ignored(noted):
    result = audit([conv()], {"w": dense(4, 8, 1, 1)}, metadata=noted)
    assert (result.pattern, result.layers[0].reason) == ("2:4", Reason.NOT_NM)


def test_metadata_replaces_our_older_metadata_only():
    model = make_model(make_graph([conv()], {}, ["x"]))
    assert read_metadata(model) == {}
    model.metadata_props.add(key="author", value="somebody")
    write_metadata(model, {"pattern": "1:4"})
    write_metadata(model, {"pattern": "2:4"})
    assert read_metadata(model) == {"pattern": "2:4"}
    assert [entry.key for entry in model.metadata_props] == ["author", "sparsegpt_trt"]
    for broken in ("{", "[1]", ""):
        model.metadata_props[1].value = broken
        assert read_metadata(model) == {}


def test_require_sparse():
    tensors = {"w": sparse(4, 8, 1, 1), "d": dense(4, 8, 1, 1)}
    result = audit([conv("w", "good"), conv("d", "bad"), conv("x", "moving")], tensors)
    result.require_sparse(["good"], "export")
    with pytest.raises(CheckFailedError, match=r"^fp16: bad is no longer 2:4: 8 groups violate it, .*'c_group': 0"):
        result.require_sparse(["good", "bad"], "fp16")
    with pytest.raises(CheckFailedError, match="gone is not in the graph") as caught:
        result.require_sparse(["gone"], "fp16")
    assert caught.value.hint


OTHER_AXIS = np.ascontiguousarray(sparse(8, 4, axis=0))  # 2:4 as (C, K), not as (K, C)


@pytest.mark.parametrize(
    ("before", "after", "tensors", "cause"),
    [
        (
            [conv()],
            [node("DequantizeLinear", ["q", "s", "z"], ["d"]), conv("d")],
            {"q": sparse(4, 8, 1, 1).astype("b"), "s": np.float32(1), "z": np.int8(3)},
            r"8 groups violate it, .* 16 zeros of float32 became non-zeros in Conv \(4, 8, 1, 1\) in int8$",
        ),
        (
            [conv()],
            [node("Cast", ["h"], ["c"], to=1), conv("c")],
            {"h": (sparse(4, 8, 1, 1) + np.eye(1, 8, 3)[..., None, None]).astype(np.float16)},
            r"4 groups violate it, .* 4 zeros of float32 became non-zeros",
        ),
        (
            [conv()],
            [node("Add", ["w", "w"], ["sum"], name="shift"), conv("sum")],
            {},
            "its weight is no longer constant: Add shift computes it$",
        ),
        ([conv()], [conv("x")], {}, "its weight is no longer constant: x is an input of the graph$"),
        ([conv()], [conv("gone")], {}, "its weight is no longer constant: gone does not exist$"),
        (
            [conv()],
            [node("DequantizeLinear", ["w", "x"], ["d"]), conv("d")],
            {},
            "its weight is no longer constant: x is an input of the graph$",
        ),
        (
            [node("MatMul", ["x", "m"], ["y"], name="conv")],
            [node("Gemm", ["x", "m"], ["y"], transB=1, name="conv")],
            {"m": OTHER_AXIS},
            r"groups run along axis 1 of Gemm \(8, 4\) in float32, before along axis 0 of \(8, 4\)$",
        ),
        ([conv()], [conv("t")], {"t": sparse(4, 6, 1, 1)}, r"axis 1 of Conv \(4, 6, 1, 1\) .* has no whole groups$"),
    ],
    ids=["zero point", "a cast", "Add", "fed", "missing", "fed scale", "axis", "shape"],
)
def test_the_cause_of_a_lost_pattern(before, after, tensors, cause):
    tensors = {"w": sparse(4, 8, 1, 1), **tensors}
    first = audit(before, tensors)
    first.require_sparse(["conv"], "FP32")
    with pytest.raises(CheckFailedError, match=rf"^INT8: conv is no longer 2:4: .*{cause}"):
        audit(after, tensors).require_sparse(["conv"], "INT8", first)


def test_json():
    result = audit([conv(), conv("d", ""), conv("x", "x")], {"w": sparse(4, 8, 3, 3), "d": dense(4, 8, 3, 3)})
    read = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert (read["model"], read["pattern"], read["sparse_layers"], read["eligible_layers"]) == ("test", "2:4", 1, 1)
    assert read["layers"][0]["name"] == "conv"
    assert read["layers"][1]["name"] == "y_"  # a node without a name bears its output's
    assert read["layers"][1]["reason"] == "NOT_NM"
    assert read["layers"][1]["first_violation"] == {"k": 0, "c_group": 0, "r": 0, "s": 0}
    assert read["layers"][2]["shape"] is None


def test_polygraphy_agrees():
    nodes, tensors = [], {}
    cases = [  # operator, attributes, shape, TensorRT's axis
        ("Conv", {}, (4, 8, 3), 1),
        ("Conv", {}, (4, 12, 3, 3), 1),
        ("Gemm", {}, (8, 4), 0),
        ("Gemm", {"transB": 1}, (4, 8), 1),
        ("MatMul", {}, (8, 4), 0),
    ]
    for number, ((op, attributes, shape, axis), kind) in enumerate(itertools.product(cases, (np.float32, np.float16))):
        weights = {"right": sparse(*shape, axis=axis), "wrong": sparse(*shape, axis=1 - axis), "dense": dense(*shape)}
        weights["almost"] = weights["right"].copy()
        weights["almost"][-1, -1] = 1
        for name, weight in weights.items():
            tensors[f"{name}{number}"] = weight.astype(kind)
            nodes.append(node(op, ["x", f"{name}{number}"], [f"y_{name}{number}"], **attributes))
    model = make_model(make_graph(nodes, tensors, inputs=["x"]))
    ours = {layer.weight for layer in audit_model(model).layers if layer.is_sparse}
    assert ours == polygraphy(model) == {name for name in tensors if name.startswith("right")}


def polygraphy(model) -> set[str]:
    """The weights that Polygraphy holds for sparse."""
    judge = SparsityPruner(model)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "overflow encountered in cast", RuntimeWarning)  # Polygraphy's, on float16
        judge.check()
    return set(judge.sparse_tensors)


def turned(weight: np.ndarray, perm: tuple[int, ...]) -> np.ndarray:
    """What Transpose with ``perm`` turns into ``weight``."""
    return np.ascontiguousarray(np.transpose(weight, np.argsort(perm)))


@pytest.mark.parametrize(
    ("source", "tensors"),
    [
        (
            [node("DequantizeLinear", ["w", "s", "z"], ["d"], axis=0)],
            {"w": sparse(4, 8, 3, 3).astype("b"), "s": np.full(4, 0.1, "f"), "z": np.zeros(4, "b")},
        ),
        ([node("Constant", [], ["d"], value=numpy_helper.from_array(sparse(4, 8, 3, 3)))], {}),
        ([node("Identity", ["w"], ["d"])], {"w": sparse(4, 8, 3, 3)}),
        ([node("Transpose", ["w"], ["d"], perm=(2, 0, 1, 3))], {"w": turned(sparse(4, 8, 3, 3), (2, 0, 1, 3))}),
    ],
    ids=["INT8", "Constant", "Identity", "Transpose"],
)
def test_sparse_weights_that_polygraphy_does_not_see(source, tensors):
    """It knows no INT8 and no Constant, and takes the inverse of a permutation for the permutation."""
    model = make_model(make_graph([*source, conv("d")], tensors, ["x"]))
    (layer,) = audit_model(model).layers
    assert (layer.shape, layer.violations, layer.eligible) == ((4, 8, 3, 3), 0, True)
    assert polygraphy(model) == set()


def test_a_grouped_convolution_that_polygraphy_takes_for_eligible():
    model = make_model(make_graph([conv(group=2)], {"w": sparse(4, 8, 3, 3)}, ["x"]))
    assert polygraphy(model) == {"w"}
    assert [layer.reason for layer in audit_model(model).layers] == [Reason.GROUPED]


@pytest.mark.parametrize("perm", list(itertools.permutations(range(4))), ids=str)
def test_any_permutation(perm):
    weight = sparse(4, 8, 3, 2)
    found = only([node("Transpose", ["w"], ["t"], perm=perm), conv("t")], {"w": turned(weight, perm)})
    assert (found.shape, found.eligible) == (weight.shape, True)
    weight[3, 7, 2, 1] = 1
    weight[3, 6, 2, 1] = 1
    weight[3, 5, 2, 1] = 1
    found = only([node("Transpose", ["w"], ["t"], perm=perm), conv("t")], {"w": turned(weight, perm)})
    assert found.first_violation == {"k": 3, "c_group": 1, "r": 2, "s": 1}
