"""FP16 graphs: the nodes that are converted or stay in FP32, and the reports of values outside FP16's range."""

from __future__ import annotations

import dataclasses
import itertools
import logging

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.helper import make_node as node
from onnxruntime.transformers.float16 import convert_np_to_float16

from export.audit import audit_model, read_metadata
from export.execution import CpuSession
from export.precision import Underflow, fp16_overflows, fp16_underflows, to_fp16
from export.precision.fp16 import _rounded
from export.writing import export_model
from sparsegpt_core.errors import InputError, ModelError, NumericsError
from tests.support.exports import IMAGES, METADATA, prepared
from tests.support.graphs import edited, make_graph, make_model
from tests.support.networks import Mixer

LEAST = np.float16(2**-24)


@pytest.fixture(scope="module")
def proto():
    return export_model(prepared(Mixer()), (4, 8, 8), METADATA)


def weights(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    return {name: value for name, value in tensors.items() if value.dtype != np.int64}


def types(proto: onnx.ModelProto) -> dict[str, int]:
    """Element types of the tensors by a full check of the graph."""
    onnx.checker.check_model(proto, full_check=True)
    graph = onnx.shape_inference.infer_shapes(proto, strict_mode=True).graph
    return {each.name: each.type.tensor_type.elem_type for each in (*graph.input, *graph.value_info, *graph.output)}


def floating(proto: onnx.ModelProto, half: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The nodes of ``half`` but those that compute shapes, of which older exporters leave some in the graph."""
    before = types(proto)
    kinds = {each.name: before[each.output[0]] for each in proto.graph.node}
    return [each for each in half.graph.node if kinds.get(each.name) != TensorProto.INT64]


def run(proto: onnx.ModelProto, images=IMAGES) -> np.ndarray:
    return CpuSession(proto, "test").run([images.numpy()])[0].astype(np.float32)


def close(actual: np.ndarray, expected: np.ndarray, tolerance: float) -> bool:
    return np.linalg.norm(actual - expected) <= tolerance * np.linalg.norm(expected)


@pytest.mark.parametrize(("io_dtype", "kind"), [("fp32", TensorProto.FLOAT), ("fp16", TensorProto.FLOAT16)])
def test_names_interface_zeros_and_values(proto, io_dtype, kind):
    before = proto.SerializeToString()
    half = to_fp16(proto, io_dtype)
    assert proto.SerializeToString() == before
    assert to_fp16(proto, io_dtype).SerializeToString() == half.SerializeToString()
    found = types(half)
    assert [found[each.name] for each in (*half.graph.input, *half.graph.output)] == [kind, kind]
    assert [each.name for each in half.graph.node if each.op_type != "Cast"] == [each.name for each in proto.graph.node]
    assert weights(half).keys() == weights(proto).keys()
    for name, value in weights(half).items():
        assert value.dtype == np.float16
        np.testing.assert_array_equal(value == 0, weights(proto)[name] == 0)
        np.testing.assert_allclose(value, weights(proto)[name], rtol=2**-11, atol=2**-24)
    assert read_metadata(half) == METADATA
    assert [dataclasses.replace(layer, dtype="") for layer in audit_model(half).layers] == [
        dataclasses.replace(layer, dtype="") for layer in audit_model(proto).layers
    ]
    assert close(run(half), run(proto), 2e-3)


def test_reductions_stay_in_fp32_and_nothing_else(proto):
    half = to_fp16(proto)
    found = types(half)
    nodes = [each for each in floating(proto, half) if each.op_type not in ("Cast", "Gemm")]
    computed = {each.op_type: found[each.output[0]] for each in nodes}
    assert computed.pop("ReduceMean") == TensorProto.FLOAT
    assert set(computed.values()) == {TensorProto.FLOAT16}


def test_all_nodes_kept_are_the_graph_itself(proto):
    kept = to_fp16(proto, keep=[each.name for each in proto.graph.node])
    assert list(kept.graph.node) == list(proto.graph.node)
    for name, value in weights(kept).items():
        np.testing.assert_array_equal(value, weights(proto)[name], strict=True)


def test_any_nodes_kept_make_a_valid_graph(proto):
    names = [each.name for each in proto.graph.node]
    expected = run(proto)
    for count, io_dtype in itertools.product(range(1, len(names), 3), ("fp32", "fp16")):
        kept = set(np.random.default_rng(count).permutation(names)[:count])
        half = to_fp16(proto, io_dtype, kept)
        found = types(half)
        for each in floating(proto, half):
            if each.name in kept and each.output[0] not in ("logits", "graph_output_cast_0"):
                assert found[each.output[0]] == TensorProto.FLOAT
        assert close(run(half), expected, 2e-3)


def test_fp32_values_pass_between_fp32_nodes():
    """exp(12)² is beyond FP16, and two nodes that take one tensor need one cast."""
    nodes = [
        node("Exp", ["x"], ["e"], name="e"),
        node("Pow", ["e", "two"], ["p"], name="p"),
        node("ReduceSum", ["p"], ["s"], name="s", keepdims=0),
        node("ReduceMean", ["p"], ["m"], name="m", keepdims=0),
        node("Div", ["m", "s"], ["y"], name="y"),
    ]
    model = make_model(make_graph(nodes, {"two": np.float32(2)}, ["x"]))
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", TensorProto.FLOAT, [4]))
    half = to_fp16(model, keep=["y"])
    assert "Cast" not in [each.op_type for each in half.graph.node]
    images = torch.full((4,), 12.0)
    np.testing.assert_allclose(run(half, images), 0.25)
    assert fp16_overflows(model, [images]).keys() == {"e", "p", "s", "m", "y"}


def test_a_tensor_for_both_kinds_of_nodes_has_the_right_types():
    """e, in FP32, goes on to s in FP32 and to y in FP16: the cast between must not bear the type of the former."""
    nodes = [
        node("Exp", ["x"], ["e"], name="e"),
        node("Softmax", ["e"], ["s"], name="s"),
        node("Add", ["e", "x"], ["a"], name="a"),
        node("Add", ["a", "s"], ["y"], name="y"),
    ]
    model = make_model(make_graph(nodes, {"unused": np.float32(2)}, ["x"]))
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 4]))
    half = to_fp16(model)
    onnx.checker.check_model(half, full_check=True)
    noted = {each.name: each.type.tensor_type.elem_type for each in half.graph.value_info}
    inferred = types(half)
    assert noted
    assert all(inferred[name] == kind for name, kind in noted.items())


def test_the_smallest_numbers(proto):
    def tiny(value):
        value[:] = [0, 1e-30, -1e-30, 3e-8, 65504, -65504, -0.0, 1]

    changed = edited(proto, "mlp.2.bias", tiny)
    half = weights(to_fp16(changed))["mlp.2.bias"]
    np.testing.assert_array_equal(half, np.float16([0, LEAST, -LEAST, LEAST, 65504, -65504, 0, 1]))
    assert fp16_underflows(changed) == {"mlp.2.bias": Underflow(3, 3 / 6)}
    assert fp16_underflows(proto) == {}


@pytest.mark.parametrize("value", [7e4, -7e4])
def test_weights_beyond_fp16_stay_in_fp32(proto, value):
    loud = edited(proto, "head.bias", lambda bias: bias.put(2, value))
    half = to_fp16(loud)
    assert weights(half)["head.bias"].dtype == weights(half)["head.weight"].dtype == np.float32
    assert weights(half)["shared.weight"].dtype == np.float16
    head = next(each for each in half.graph.node if each.name == "head")
    assert types(half)[head.input[0]] == TensorProto.FLOAT
    np.testing.assert_allclose(run(half)[:, 2], value, rtol=1e-4)
    assert fp16_overflows(loud, [IMAGES]) == {"head": pytest.approx(7e4, rel=1e-4)}


@pytest.mark.parametrize(("first", "found"), [(8e3, False), (8.5e3, True)])
def test_all_samples_are_read_where_a_few_come_near_to_the_limit(first, found):
    """The limit is 65504; an eighth of it 8188. The last sample is beyond it."""
    model = make_model(make_graph([node("Identity", ["x"], ["y"], name="same")], {"unused": np.float32(2)}, ["x"]))
    for value in (model.graph.input[0], model.graph.output[0]):
        value.CopyFrom(helper.make_tensor_value_info(value.name, TensorProto.FLOAT, ["n"]))
    images = torch.tensor([0.0, 0, 0, first, 0, 7e4])
    assert fp16_overflows(model, [images]) == ({"same": pytest.approx(7e4)} if found else {})


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_nan_and_infinite_weights_are_refused(proto, value):
    broken = edited(proto, "head.bias", lambda bias: bias.put(2, value))
    for check in (to_fp16, lambda model: fp16_overflows(model, [IMAGES])):
        with pytest.raises(NumericsError, match=r"^head\.bias contains NaN or infinity"):
            check(broken)


def test_activations_beyond_fp16_are_named_and_kept():
    nodes = [
        node("Mul", ["x", "loud"], ["a"], name="loud"),
        node("Relu", ["a"], ["b"], name="relu"),
        node("Mul", ["b", "quiet"], ["c"], name="quiet"),
        node("Mul", ["c", "scale"], ["y"], name="scale"),
    ]
    tensors = {"loud": np.float32(6e4), "quiet": np.float32(1e-4), "scale": np.float32(0.5)}
    model = make_model(make_graph(nodes, tensors, ["x"]))
    for value in (model.graph.input[0], model.graph.output[0]):
        value.CopyFrom(helper.make_tensor_value_info(value.name, TensorProto.FLOAT, ["n"]))
    images = torch.tensor([0.5, 2.0])
    assert fp16_overflows(model, [images[:1]]) == {}
    assert fp16_overflows(model, [images]) == dict.fromkeys(("loud", "relu", "quiet"), pytest.approx(1.2e5))
    half = to_fp16(model, keep=fp16_overflows(model, [images]))
    found = types(half)
    assert [found[name] for name in "ab"] == [TensorProto.FLOAT] * 2
    assert weights(half)["quiet"].dtype == np.float32
    assert weights(half)["scale"].dtype == np.float16
    assert close(run(half, images), run(model, images), 2e-3)


def quantized(opset: int) -> onnx.ModelProto:
    """Two INT8 convolutions in a row, their weights 2:4."""
    rng = np.random.default_rng(0)
    kernel = rng.integers(-127, 128, (8, 8, 3, 3)).astype(np.int8) * (np.arange(8) % 4 < 2).astype("b")[:, None, None]
    nodes = []
    for index, source in enumerate(("x", "r0")):
        nodes += [
            node("QuantizeLinear", [source, "s", "z"], [f"q{index}"], name=f"q{index}"),
            node("DequantizeLinear", [f"q{index}", "s", "z"], [f"d{index}"], name=f"d{index}"),
            node("DequantizeLinear", ["w", "sw", "zw"], [f"w{index}"], name=f"w{index}", axis=0),
            node("Conv", [f"d{index}", f"w{index}", "b"], [f"c{index}"], name=f"conv{index}"),
            node("Relu", [f"c{index}"], [f"r{index}"], name=f"relu{index}"),
        ]
    tensors = {"w": kernel, "b": rng.normal(size=8).astype("f"), "s": np.float32(0.02), "z": np.int8(0)}
    tensors |= {"sw": np.full(8, 3e-4, "f"), "zw": np.zeros(8, "b")}
    model = make_model(make_graph(nodes, tensors, ["x"]))
    model.opset_import[0].version = opset
    for value, size in ((model.graph.input[0], 8), (model.graph.output[0], 6)):
        value.CopyFrom(helper.make_tensor_value_info(value.name, TensorProto.FLOAT, ["n", 8, size, size]))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("r1", TensorProto.FLOAT, ["n", 8, 4, 4]))
    return model


def test_fp16_around_int8():
    model = quantized(20)
    half = to_fp16(model)
    found = types(half)
    assert [found[name] for name in ("d0", "w0", "c0", "r0", "q1")] == [TensorProto.FLOAT16] * 4 + [TensorProto.INT8]
    assert [layer.eligible for layer in audit_model(half).layers] == [True, True]
    images = torch.randn(4, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    assert close(run(half, images), run(model, images), 5e-3)
    with pytest.raises(ModelError, match="needs opset 19, the graph has 18") as caught:
        to_fp16(quantized(18))
    assert caught.value.hint


def test_what_cannot_be_converted(proto):
    with pytest.raises(InputError, match="'bf16'"):
        to_fp16(proto, "bf16")
    branch = make_graph([node("Identity", ["x"], ["b"])])
    choice = make_model(make_graph([node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)], inputs=["x"]))
    with pytest.raises(ModelError, match="branches") as caught:
        to_fp16(choice)
    assert caught.value.hint


def test_a_graph_that_does_not_fit_into_one_message(proto, monkeypatch):
    """Beyond 2 GiB a graph goes through files, and the types are those that the exporter noted."""
    expected = run(proto), fp16_overflows(proto, [IMAGES * 1e6]), to_fp16(proto)
    monkeypatch.setattr("export.writing.saving._MAX_WEIGHT_BYTES", 100)
    np.testing.assert_array_equal(run(proto), expected[0])
    assert fp16_overflows(proto, [IMAGES * 1e6]) == pytest.approx(expected[1])
    assert to_fp16(proto) == expected[2]
    assert all(tensor.raw_data for tensor in proto.graph.initializer)


def test_a_failed_conversion_restores_the_converters_logger(proto, monkeypatch):
    def fail(*_args, **_options):
        raise RuntimeError("no conversion")

    monkeypatch.setattr("onnxruntime.transformers.float16.convert_float_to_float16", fail)
    logger = logging.getLogger("onnxruntime.transformers.float16")
    before = logger.level
    with pytest.raises(RuntimeError, match="no conversion"):
        to_fp16(proto)
    assert logger.level == before


def test_weights_are_rounded_as_by_the_converter():
    """Numbers of every exponent, and those at the limits, against the converter's own function."""
    rng = np.random.default_rng(0)
    limits = np.float32(
        [0, 2.9e-8, 2.98e-8, 5.95e-8, 5.96e-8, 5.97e-8, 9e-8, 6.1e-5, 65503, 65504, 65519, 65520, 1e9, 3e38]
    )
    spread = np.exp2(rng.uniform(-140, 20, 200_000)).astype("f")
    values = np.concatenate([limits, np.nextafter(limits, 1), np.nextafter(limits, np.float32(0)), spread])
    values = np.concatenate([values, -values, np.float32([np.inf, -np.inf, np.nan])])
    expected = convert_np_to_float16(values.copy())
    assert _rounded(values).tobytes() == expected.tobytes()
