"""Estimates against hand counts, the magnitude copy against brute force and the auditor."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import helper, numpy_helper
from torchvision.models import resnet18

from deploy.explain import ceiling
from deploy.graph import Product, Workload, read_workloads
from deploy.predict import EstimatedPrediction, predict
from deploy.predict.pruned_copy import magnitude_copy, magnitude_mask
from export.audit import audit_model
from export.writing import export_model
from sparsegpt_core.errors import InputError
from sparsegpt_core.patterns import NM, find_violations
from sparsegpt_core.reasons import Reason

FLOAT = onnx.TensorProto.FLOAT


def weight(*shape: int, dtype: type = np.float32) -> np.ndarray:
    return (np.random.default_rng(0).normal(size=shape) * 50 + 7).astype(dtype)


def model_of(nodes: list[Any], inputs: dict[str, Any], constants: dict[str, Any]) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info("y", FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def save(model: onnx.ModelProto, folder: Path) -> Path:
    onnx.save(model, str(folder / "model.onnx"))
    return folder / "model.onnx"


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(export_model(resnet18(weights=None), (3, 64, 64)), tmp_path_factory.mktemp("resnet"))


@pytest.fixture(scope="module")
def prediction(resnet: Path) -> EstimatedPrediction:
    return predict(resnet, (1, 32, 64), gpu="rtx3060")


def test_workloads_by_hand() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "conv"], ["a"], "conv", pads=[1] * 4, strides=[2, 2]),
        helper.make_node("Relu", ["a"], ["b"], "relu"),
        helper.make_node("Conv", ["b", "depthwise"], ["c"], "depthwise", group=8),
        helper.make_node("ConvTranspose", ["c", "up"], ["d"], "up", strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["d"], ["e"], "pool"),
        helper.make_node("Reshape", ["e", "shape"], ["f"], "flat"),
        helper.make_node("Gemm", ["f", "gemm"], ["g"], "gemm", transB=1),
        helper.make_node("MatMul", ["g", "matmul"], ["y"]),
    ]
    constants = {"conv": weight(8, 4, 3, 3), "depthwise": weight(8, 1, 1, 1), "up": weight(8, 6, 2, 2)}
    constants |= {"shape": np.array([0, 6]), "gemm": weight(10, 6), "matmul": weight(10, 5)}
    found = read_workloads(model_of(nodes, {"x": ("N", 4, 8, 8)}, constants), {"x": (2, 4, 8, 8)})
    assert found == {
        "conv": Workload(2 * (512 + 288 + 256), 2 * 288, Product(2 * 16, 8, 4, 9)),
        "depthwise": Workload(2 * (256 + 8 + 256), 16, Product(2 * 16, 1, 1, 1, groups=8)),
        "up": Workload(2 * (256 + 192 + 2 * 6 * 64), 2 * 192, Product(2 * 16, 6 * 4, 8)),
        "pool": Workload(2 * (768 + 12)),
        "gemm": Workload(2 * (12 + 60 + 20), 120, Product(2, 10, 6)),
        "y": Workload(2 * (20 + 50 + 10), 100, Product(2, 5, 10)),
    }

    flops = {name: work.flops for name, work in found.items()}
    assert flops == {
        "conv": 2 * (2 * 8 * 16) * 36,
        "depthwise": 2 * 256,
        "up": 2 * 256 * 24,
        "pool": 0,
        "gemm": 2 * 2 * 10 * 6,
        "y": 2 * 2 * 5 * 10,
    }


def test_nodes_without_outputs_do_no_work() -> None:
    nodes = [helper.make_node("ConvTranspose", ["nowhere", "w"], [])]  # its shapes cannot be inferred
    assert read_workloads(model_of(nodes, {"x": (1, 4, 8, 8)}, {}), {"x": (1, 4, 8, 8)}) == {}


def test_flops_of_resnet18_are_those_known(prediction: EstimatedPrediction) -> None:
    per_image = sum(layer.flops or 0 for layer in prediction.layers) / 32
    assert per_image == pytest.approx(2 * 1.8141e9 * (64 / 224) ** 2, rel=0.01)  # He et al., 2015: 1.8e9 multiply-adds


def test_resnet18(prediction: EstimatedPrediction) -> None:
    layers = {layer.name: layer for layer in prediction.layers}
    assert len(layers) == 21
    stem, small, large = layers["conv1"], layers["layer1.0.conv1"], layers["layer4.1.conv2"]
    assert (stem.eligible, stem.reason, stem.gain) == (False, Reason.CHANNELS_NOT_MULTIPLE, 1.0)
    assert (small.eligible, small.reason, small.gain) == (True, Reason.SMALL_CHANNELS, 1.0)
    assert (large.eligible, large.reason, large.advice, large.bound) == (True, None, "", "compute")
    assert layers["layer3.0.downsample.0"].reason == Reason.SMALL_CHANNELS  # 1×1, 128 channels; its 3×3 counts as 1152
    assert layers["layer3.0.conv1"].reason is None
    assert 0.8 < sum(layer.share or 0 for layer in prediction.layers) < 1  # the pools take the rest
    assert (prediction.gpu, prediction.precision) == ("rtx3060", "fp16")
    assert prediction.shapes == {"input": (32, 3, 64, 64)}
    assert prediction.bound is not None
    assert prediction.ceiling is not None
    assert 1 < prediction.bound < prediction.ceiling < 2
    assert "estimate" in prediction.verdict


def test_precisions(resnet: Path) -> None:
    fp16, int8 = (predict(resnet, (32,) * 3, "a30", precision) for precision in ("fp16", "int8"))
    assert predict(resnet, (32,) * 3, "a30") == fp16  # an FP32 file counts as FP16
    assert int8.seconds is not None
    assert fp16.seconds is not None
    assert fp16.seconds / 2 < int8.seconds < fp16.seconds
    with pytest.raises(InputError, match="precision"):
        predict(resnet, precision="fp8")


def test_roofline_by_hand(tmp_path: Path) -> None:
    """A layer bound by memory gains what its weights shrink."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], "fc")]
    path = save(model_of(nodes, {"x": ("N", 2048)}, {"w": weight(2048, 2048)}), tmp_path)
    (narrow,) = predict(path, (1, 1, 1), "l4").layers
    assert (narrow.bound, narrow.share) == ("memory", 1.0)
    assert narrow.seconds is not None
    assert narrow.sparse_seconds is not None
    saved = 2 * 2048**2 * 7 / 16  # bytes
    assert narrow.seconds - narrow.sparse_seconds == pytest.approx(saved / (0.8 * 300e9))
    (wide,) = predict(path, (8192,) * 3, "a100").layers
    assert wide.bound == "compute"
    assert wide.gain is not None
    assert 1.1 < wide.gain < 2


def test_int8_weights_shrink_less_than_fp16(tmp_path: Path) -> None:
    """Two of four bytes and four bits of positions remain of INT8: three eighths are saved."""
    scale, zero = np.float32(0.1), np.int8(0)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["a"]),
        helper.make_node("DequantizeLinear", ["a", "scale", "zero"], ["b"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["w"]),
        helper.make_node("MatMul", ["b", "w"], ["y"], "fc"),
    ]
    constants = {"q": weight(2048, 2048, dtype=np.int8), "scale": np.array(scale), "zero": np.array(zero)}
    (layer,) = predict(save(model_of(nodes, {"x": ("N", 2048)}, constants), tmp_path), (1, 1, 1), "l4").layers
    assert layer.seconds is not None
    assert layer.sparse_seconds is not None
    assert layer.seconds - layer.sparse_seconds == pytest.approx(2048**2 * 3 / 8 / (0.8 * 300e9))


def test_prediction_without_shapes_or_gain(tmp_path: Path, resnet: Path) -> None:
    nodes = [helper.make_node("Unknown", ["x"], ["a"], domain="custom"), helper.make_node("MatMul", ["a", "w"], ["y"])]
    model = model_of(nodes, {"x": (2, 512)}, {"w": weight(512, 512)})
    model.opset_import.append(helper.make_opsetid("custom", 1))
    unknown = predict(save(model, tmp_path))
    assert (unknown.layers[0].gain, unknown.layers[0].share, unknown.bound) == (None, None, None)
    assert "could be inferred" in unknown.verdict
    known = helper.make_node("MatMul", ["x", "w"], ["z"])
    model.graph.node.append(known)
    assert predict(save(model, tmp_path)).verdict.endswith("shapes are unknown: 1 layers.")
    small = model_of([helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": (2, 64)}, {"w": weight(64, 64)})
    assert predict(save(small, tmp_path)).verdict.startswith("No gain is expected")
    with pytest.raises(InputError, match="does not fit"):
        predict(resnet, {"input": ((1, 1, 8, 8),) * 3})


def test_ceiling() -> None:
    assert [ceiling(share) for share in (0, 0.5, 1)] == [1, pytest.approx(4 / 3), 2]


def best_mask(group: np.ndarray, n: int) -> set[tuple[int, ...]]:
    """Every choice of ``n`` entries that keeps the most magnitude."""
    choices = list(itertools.combinations(range(len(group)), n))
    kept = [sorted(np.abs(group[list(choice)]), reverse=True) for choice in choices]
    return {choice for choice, values in zip(choices, kept, strict=True) if values == max(kept)}


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_mask_against_brute_force(data: st.DataObject) -> None:
    m = data.draw(st.integers(2, 6))
    pattern = NM(data.draw(st.integers(1, m - 1)), m)
    sizes = data.draw(st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 2)))
    axis = data.draw(st.integers(-3, 2))
    shape = tuple(size * m if index == axis % 3 else size for index, size in enumerate(sizes))
    values = data.draw(arrays.arrays(np.float32, shape, elements=st.integers(-5, 5).map(float)))
    mask = magnitude_mask(values, pattern, axis)
    rows = np.moveaxis(values, axis, -1).reshape(-1, m)
    kept = np.moveaxis(mask, axis, -1).reshape(-1, m)
    for row, keep in zip(rows, kept, strict=True):
        assert tuple(np.flatnonzero(keep)) in best_mask(row, pattern.n)


def test_copy_of_resnet18(resnet: Path) -> None:
    model = onnx.load(str(resnet))
    before = model.SerializeToString(deterministic=True)
    copy = magnitude_copy(model)
    assert model.SerializeToString(deterministic=True) == before
    audit = audit_model(copy)
    assert [layer.name for layer in audit.layers if not layer.eligible] == ["conv1"]
    dense = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    for tensor in copy.graph.initializer:
        sparse = numpy_helper.to_array(tensor)
        assert np.all((sparse == dense[tensor.name]) | (sparse == 0))
    assert audit_model(magnitude_copy(model, NM(1, 4)), NM(1, 4)).eligible_layers == audit.eligible_layers


def test_the_copy_prunes_the_stored_tensor_of_a_weight() -> None:
    quantized = [helper.make_node("DequantizeLinear", ["int8", "scale", "zero"], ["w1"], axis=0)]
    constant = helper.make_node("Constant", [], ["half"], value=numpy_helper.from_array(weight(8, 8, dtype=np.float16)))
    nodes = [
        *quantized,
        helper.make_node("Conv", ["x", "w1"], ["a"], "conv"),
        helper.make_node("Conv", ["a", "grouped"], ["b"], "grouped", group=2),
        helper.make_node("ConvTranspose", ["b", "up"], ["c"], "up"),
        helper.make_node("Flatten", ["c"], ["d"], "flat"),
        helper.make_node("Transpose", ["stored"], ["turned"], perm=[1, 0]),
        helper.make_node("Transpose", ["turned"], ["again"]),
        helper.make_node("Transpose", ["again"], ["w2"]),
        helper.make_node("MatMul", ["d", "w2"], ["e"], "matmul"),
        constant,
        helper.make_node("Cast", ["half"], ["w3"], to=FLOAT),
        helper.make_node("Gemm", ["e", "w3"], ["f"], "gemm"),
        helper.make_node("Reshape", ["odd", "shape"], ["w4"]),
        helper.make_node("MatMul", ["f", "w4"], ["y"], "reshaped"),
    ]
    constants = {"int8": weight(8, 4, 1, 1, dtype=np.int8), "scale": np.full(8, 0.1, np.float32)}
    constants |= {"zero": np.zeros(8, np.int8), "grouped": weight(8, 4, 1, 1), "up": weight(8, 8, 1, 1)}
    constants |= {"stored": weight(8, 8), "odd": weight(4, 16), "shape": np.array([8, 8])}
    audit = audit_model(magnitude_copy(model_of(nodes, {"x": (1, 4, 1, 1)}, constants)))
    sparse = {layer.name for layer in audit.layers if layer.is_sparse}
    assert sparse == {"conv", "matmul", "gemm"}  # grouped and transposed convolutions gain nothing, reshapes are rare


def test_a_weight_of_two_layers_obeys_both() -> None:
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["a"], "columns"),
        helper.make_node("Gemm", ["a", "w"], ["y"], "rows", transB=1),
    ]
    copy = magnitude_copy(model_of(nodes, {"x": (1, 8)}, {"w": weight(8, 8)}))
    value = numpy_helper.to_array(copy.graph.initializer[0])
    assert [find_violations(value, NM(2, 4), axis).count for axis in (0, 1)] == [0, 0]
