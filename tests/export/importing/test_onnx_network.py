"""The network from an ONNX file computes what ONNX Runtime computes from the file, and writes its weights back."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from export.audit import audit_model
from export.importing import OnnxNetwork, onnx_config, prune_onnx
from export.writing import export_model
from sparsegpt_core.network import plan_layers
from sparsegpt_core.pruning import prune_model
from sparsegpt_core.settings import PruneSettings


def _run(model, *inputs):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    return session.run(None, dict(zip(names, inputs, strict=True)))


def _model(nodes, inputs, outputs, constants=(), opset=17):
    graph = helper.make_graph(nodes, "g", inputs, outputs, [numpy_helper.from_array(v, k) for k, v in constants])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def _info(name, *shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def _random(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def _agrees(model, *inputs):
    """Return whether the network and ONNX Runtime compute the same."""
    network = OnnxNetwork(model)
    with torch.no_grad():
        outputs = network(*map(torch.from_numpy, inputs))
    outputs = list(outputs.values()) if isinstance(outputs, dict) else [outputs]
    expected = _run(model, *inputs)
    return all(
        np.allclose(a.numpy(), b, rtol=1e-4, atol=1e-5 * abs(b).max()) for a, b in zip(outputs, expected, strict=True)
    )


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"pads": [1, 2, 1, 2]},
        {"pads": [0, 1, 2, 3], "strides": [2, 1]},
        {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
        {"auto_pad": "SAME_LOWER", "strides": [2, 3]},
        {"auto_pad": "VALID", "dilations": [2, 1]},
    ],
)
def test_a_convolution_of_any_padding(attributes):
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], "conv", **attributes),
        helper.make_node("Relu", ["c"], ["y"]),
    ]
    constants = {"w": _random(8, 4, 3, 2), "b": _random(8)}.items()
    model = _model(nodes, [_info("x", "n", 4, "h", "w_")], [_info("y", "n", 8, None, None)], constants)
    assert _agrees(model, _random(2, 4, 9, 11))
    assert [*OnnxNetwork(model).state_dict()] == ["conv.weight", "conv.bias"]


@pytest.mark.parametrize("dimensions", [1, 3])
def test_convolutions_of_other_dimensions(dimensions):
    shape = (8, 4, *(3,) * dimensions)
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], "conv", pads=[1] * (2 * dimensions))]
    sizes = [None] * dimensions
    model = _model(nodes, [_info("x", "n", 4, *sizes)], [_info("y", "n", 8, *sizes)], {"w": _random(*shape)}.items())
    assert _agrees(model, _random(2, 4, *(6,) * dimensions))
    (layer,) = OnnxNetwork(model).children()
    assert type(layer).__name__ == f"Conv{dimensions}d"


@pytest.mark.parametrize("trans_b", [0, 1])
def test_gemm(trans_b):
    weight = _random(5, 8) if trans_b else _random(8, 5)
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["y"], "fc", transB=trans_b)]
    model = _model(nodes, [_info("x", "n", 8)], [_info("y", "n", 5)], {"w": weight, "b": _random(5)}.items())
    assert _agrees(model, _random(3, 8))
    assert OnnxNetwork(model).get_submodule("fc").weight.shape == (5, 8)


def test_matmul_with_the_weight_on_either_side():
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], "right"),
        helper.make_node("MatMul", ["v", "a"], ["y"], "left"),
    ]
    constants = {"w": _random(8, 6), "v": _random(4, 12)}.items()
    model = _model(nodes, [_info("x", "n", 12, 8)], [_info("y", "n", 4, 6)], constants)
    assert _agrees(model, _random(3, 12, 8))
    network = OnnxNetwork(model)
    assert network.get_submodule("right").weight.shape == (6, 8)
    assert network.get_submodule("left").weight.shape == (4, 12)


MOVES = {
    "initializer": ([], _random(8, 4, 1, 1), "w"),
    "identity": ([helper.make_node("Identity", ["w"], ["v"])], _random(8, 4, 1, 1), "v"),
    "transpose": ([helper.make_node("Transpose", ["w"], ["v"], perm=[3, 2, 0, 1])], _random(1, 1, 4, 8), "v"),
    "reshape": ([helper.make_node("Reshape", ["w", "shape"], ["v"])], _random(8, 4), "v"),
    "half": (
        [helper.make_node("Cast", ["w"], ["v"], to=TensorProto.FLOAT)],
        _random(8, 4, 1, 1).astype(np.float16),
        "v",
    ),
}


@pytest.mark.parametrize("kind", [*MOVES, "constant"])
def test_weights_wherever_they_hide_are_pruned_in_their_place(kind):
    if kind == "constant":
        value = helper.make_node("Constant", [], ["v"], value=numpy_helper.from_array(_random(8, 4, 1, 1)))
        moves, constants, read = [value], {}, "v"
    else:
        moves, stored, read = MOVES[kind]
        constants = {"w": stored, "shape": np.int64([8, 4, 1, 1])}
    nodes = [*moves, helper.make_node("Conv", ["x", read], ["c"], "conv"), helper.make_node("Relu", ["c"], ["y"])]
    model = _model(nodes, [_info("x", "n", 4, 5, 5)], [_info("y", "n", 8, 5, 5)], constants.items())
    assert _agrees(model, _random(2, 4, 5, 5))
    sparse, result = prune_onnx(model, torch.randn(8, 4, 5, 5), PruneSettings(include=("conv",)))
    assert [layer.status for layer in result.layers] == ["pruned"]
    (audited,) = audit_model(sparse).layers
    assert audited.is_sparse
    assert [*sparse.graph.node[-1].output] == ["y"]
    _same_but_weights(model, sparse, {"w", "v"})


def _same_but_weights(before, after, changed):
    """Check that two models differ in the values of some tensors alone, which keep their names, shapes and types."""
    before, after = copy.deepcopy(before), copy.deepcopy(after)
    for model in (before, after):
        for tensor in model.graph.initializer:
            if tensor.name in changed:
                tensor.ClearField("raw_data")
                tensor.ClearField("float_data")
                tensor.ClearField("int32_data")
        for node in model.graph.node:
            if node.op_type == "Constant" and node.output[0] in changed:
                node.attribute[0].t.ClearField("raw_data")
    assert before.SerializeToString(deterministic=True) == after.SerializeToString(deterministic=True)


def _two_convolutions(**second):
    return [
        helper.make_node("Conv", ["x", "w"], ["a"], "first", pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w"], ["y"], "second", **({"pads": [1] * 4} | second)),
    ]


def test_a_shared_weight_is_pruned_once_over_both_uses():
    model = _model(
        _two_convolutions(), [_info("x", "n", 8, 6, 6)], [_info("y", "n", 8, 6, 6)], {"w": _random(8, 8, 3, 3)}.items()
    )
    assert _agrees(model, _random(2, 8, 6, 6))
    network = OnnxNetwork(model)
    (layer,) = plan_layers(network, torch.randn(2, 8, 6, 6), PruneSettings(include=("*",)))
    assert (layer.name, layer.calls) == ("first", 2)
    sparse, _ = prune_onnx(model, torch.randn(16, 8, 6, 6), PruneSettings(include=("*",)))
    assert audit_model(sparse).sparse_layers == 2


@pytest.mark.parametrize("use", ["other stride", "other operator", "output"])
def test_a_weight_that_is_read_in_another_way_stays_dense(use):
    nodes, outputs = _two_convolutions(), [_info("y", "n", 8, None, None)]
    if use == "other stride":
        nodes = _two_convolutions(strides=[2, 2])
    elif use == "other operator":
        nodes += [helper.make_node("Mul", ["w", "w"], ["z"])]
    if use != "other stride":
        outputs.append(_info("z" if use == "other operator" else "w", 8, 8, 3, 3))
    model = _model(nodes, [_info("x", "n", 8, 6, 6)], outputs, {"w": _random(8, 8, 3, 3)}.items())
    layers = OnnxNetwork(model).select_layers(torch.randn(2, 8, 6, 6), PruneSettings().pattern)
    assert {layer.reason.value for layer in layers} == {"READ_ELSEWHERE"}


def test_layers_that_cannot_be_pruned_have_their_reasons():
    constants = {
        "grouped": _random(8, 2, 1, 1),
        "transposed": _random(8, 8, 1, 1),
        "q": np.ones((8, 8, 1, 1), np.int8),
        "s": np.float32(0.1),
        "batch": _random(2, 5, 8),
        "six": _random(8, 6, 1, 1),
    }
    nodes = [
        helper.make_node("Conv", ["x", "grouped"], ["a"], "grouped", group=4),
        helper.make_node("ConvTranspose", ["a", "transposed"], ["b"], "transposed"),
        helper.make_node("DequantizeLinear", ["q", "s"], ["d"]),
        helper.make_node("Conv", ["b", "d"], ["c"], "quantised"),
        helper.make_node("MatMul", ["batch", "c"], ["e"], "batch of matrices"),
        helper.make_node("Conv", ["c", "k"], ["f"], "dynamic"),
        helper.make_node("Slice", ["f", "zero", "six_", "one"], ["g"]),
        helper.make_node("Conv", ["g", "six"], ["y"], "narrow"),
    ]
    constants |= {"zero": np.int64([0]), "six_": np.int64([6]), "one": np.int64([1])}
    inputs = [_info("x", "n", 8, 8, 8), _info("k", 8, 8, 1, 1)]
    outputs = [_info("y", "n", 8, 8, 8), _info("e", "n", 8, 5, 8)]
    constants["batch"] = _random(1, 5, 8)
    model = _model(nodes, inputs, outputs, constants.items())
    network = OnnxNetwork(model)
    sample = (torch.randn(2, 8, 8, 8), torch.randn(8, 8, 1, 1))
    network.record_values(sample)
    assert {node.name: node.reason and node.reason.value for node in network._source.weighted} == {
        "grouped": "GROUPED",
        "transposed": "TRANSPOSED",
        "quantised": "QUANTISED",
        "batch of matrices": "NOT_A_PRODUCT",
        "dynamic": "NOT_CONSTANT",
        "narrow": None,
    }


@pytest.mark.parametrize("attribute", [{"alpha": 0.5}, {"beta": 2.0}, {"transA": 1}])
def test_a_gemm_with_factors_or_a_transposed_input_stays_dense(attribute):
    nodes = [helper.make_node("Gemm", ["x", "w", "c"], ["y"], "gemm", **attribute)]
    constants = {"w": _random(8, 8), "c": _random(8)}
    model = _model(nodes, [_info("x", 8, 8)], [_info("y", 8, 8)], constants.items())
    assert _agrees(model, _random(8, 8))
    (layer,) = OnnxNetwork(model).select_layers(torch.randn(8, 8), PruneSettings().pattern)
    assert (layer.name, layer.reason.value) == ("gemm", "NOT_A_PRODUCT")


class _Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.left, self.right = (
            nn.Conv2d(4, 8, 3, padding=1),
            nn.Conv2d(8, 8, 1),
            nn.Conv2d(8, 8, 3, padding=1),
        )
        self.norm, self.boxes, self.classes = nn.BatchNorm2d(8), nn.Conv2d(16, 8, 1), nn.Linear(16, 12)

    def forward(self, x):
        x = self.stem(x).relu()
        y = torch.cat([self.left(x), self.norm(self.right(x)) + x], 1)
        return {"boxes": self.boxes(y), "classes": self.classes(y.mean((2, 3)))}


@pytest.fixture
def branches():
    torch.manual_seed(0)
    network = _Branches().eval()
    network.norm.running_mean.normal_()
    network.norm.running_var.uniform_(0.5, 2)
    network.norm.weight.data.uniform_(0.5, 2)
    return network


@pytest.mark.parametrize("fold", [True, False])
@pytest.mark.parametrize(
    "quality", [{}, {"mask": "adaptive", "alpha": 0.0, "refit": False}, {"bias": False, "alpha": None}]
)
def test_both_doors_agree(branches, fold, quality):
    """The network and its exported file get the same masks, and weights and biases that differ by rounding."""
    settings, batches = PruneSettings(include=("classes",), **quality), list(torch.randn(64, 4, 8, 8).split(16))
    model = export_model(branches, (4, 8, 8), fold_batch_norm=fold)
    network = OnnxNetwork(model)
    by_file = {layer.name: layer for layer in prune_model(network, batches, settings).layers}
    by_torch = {layer.name: layer for layer in prune_model(branches, batches, settings).layers}
    assert {name: layer.reason for name, layer in by_file.items()} == {
        name: layer.reason for name, layer in by_torch.items()
    }
    scale = branches.norm.weight / (branches.norm.running_var + branches.norm.eps).sqrt() if fold else torch.ones(8)
    for name in ("left", "right", "classes"):
        here, there = network.get_submodule(name).weight, branches.get_submodule(name).weight
        there = there * scale[:, None, None, None] if name == "right" else there
        assert torch.equal(here == 0, there == 0)
        assert torch.allclose(here, there, rtol=1e-3, atol=1e-5)
    expected, images = branches(batches[0]), batches[0].numpy()
    for name, output in zip(("boxes", "classes"), _run(network.to_onnx(), images), strict=True):
        assert np.allclose(output, expected[name].detach(), rtol=1e-3, atol=1e-4)


def test_heads_are_the_last_layers_of_each_output(branches):
    network = OnnxNetwork(export_model(branches, (4, 8, 8)))
    layers = network.select_layers(torch.randn(2, 4, 8, 8), PruneSettings().pattern)
    assert {layer.name: layer.reason and layer.reason.value for layer in layers} == {
        "stem": "FIRST_LAYER",
        "left": None,
        "right": None,
        "boxes": "HEAD",
        "classes": "HEAD",
    }


@pytest.mark.parametrize(("reshape", "expected"), [([0, -1], None), ([1, -1], 1), ([-1, 144], None)])
def test_a_batch_fixed_in_the_file(reshape, expected):
    """It is opened where that changes nothing; else the network runs image by image."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], "conv", pads=[1] * 4),
        helper.make_node("Reshape", ["a", "shape"], ["b"]),
        helper.make_node("MatMul", ["b", "v"], ["y"], "fc"),
    ]
    constants = {"w": _random(4, 4, 3, 3), "shape": np.int64(reshape), "v": _random(144, 8)}.items()
    model = _model(nodes, [_info("x", 1, 4, 6, 6)], [_info("y", 1, 8)], constants)
    network = OnnxNetwork(model)
    assert network.batch_size == expected
    images = _random(3, 4, 6, 6)
    with torch.no_grad():
        outputs = network(torch.from_numpy(images)).numpy()
    assert np.allclose(outputs, np.concatenate([_run(model, image[None])[0] for image in images]), atol=1e-4)
    sparse, result = prune_onnx(model, torch.randn(16, 4, 6, 6), PruneSettings(include=("*",)))
    assert {layer.status for layer in result.layers} == {"pruned"}
    assert audit_model(sparse).sparse_layers == 2
    assert [each.dim_value for each in sparse.graph.input[0].type.tensor_type.shape.dim] == [1, 4, 6, 6]


def test_weights_of_a_half_precision_file_stay_half():
    nodes = [helper.make_node("Conv", ["x", "w", "b"], ["a"], "conv"), helper.make_node("Relu", ["a"], ["y"])]
    constants = {"w": _random(8, 8, 1, 1).astype(np.float16), "b": _random(8).astype(np.float16)}.items()
    half = TensorProto.FLOAT16
    model = _model(nodes, [_info("x", "n", 8, 4, 4, kind=half)], [_info("y", "n", 8, 4, 4, kind=half)], constants)
    batches = torch.randn(16, 8, 4, 4).half()
    sparse, _ = prune_onnx(model, batches, PruneSettings(include=("*",)))
    assert [tensor.data_type for tensor in sparse.graph.initializer] == [half, half]
    assert audit_model(sparse).sparse_layers == 1
    assert np.isfinite(_run(sparse, batches.numpy())[0]).all()


def test_an_unsorted_graph_with_weights_in_a_function_and_a_branch():
    model = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["": 17, "f": 1]>
        g (float[n, 4] x) => (float[n, 4] y)
        <float[4, 4] w = {1,2,3,4,5,6,7,8,9,1,2,3,4,5,6.5,7}, bool t = {1}> {
          b = f.twice (a)
          a = MatMul (x, w)
          y = If (t) <then_branch = inner () => (float[n, 4] z) { z = MatMul (b, w) },
                      else_branch = other () => (float[n, 4] u) { u = Identity (b) }>
        }
        <domain: "f", opset_import: ["": 17]> twice (v) => (r) {
          c = Constant <value = float[4, 4] {1,0,0,0,0,1.5,0,0,0,0,1,0,0,0,0,1}> ()
          r = MatMul (v, c)
        }
        """
    )
    network = OnnxNetwork(model)
    reasons = {node.name: node.reason and node.reason.value for node in network._source.weighted}
    assert reasons == {"a": "READ_ELSEWHERE", **{name: "IN_SUBGRAPH" for name in reasons if name != "a"}}
    x = _random(2, 4)
    expected = x @ numpy_helper.to_array(model.graph.initializer[0]) * np.float32([1, 1.5, 1, 1])
    expected = expected @ numpy_helper.to_array(model.graph.initializer[0])
    assert np.allclose(network(torch.from_numpy(x)).numpy(), expected, rtol=1e-4)


def test_two_inputs_by_name(tmp_path: Path):
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["a"], "conv"),
        helper.make_node("GlobalAveragePool", ["a"], ["b"]),
        helper.make_node("Flatten", ["b"], ["c"]),
        helper.make_node("Concat", ["c", "facts"], ["d"], axis=1),
        helper.make_node("Gemm", ["d", "v"], ["y"], "fc"),
    ]
    constants = {"w": _random(8, 4, 1, 1), "v": _random(12, 4)}.items()
    model = _model(nodes, [_info("image", "n", 4, 5, 5), _info("facts", "n", 4)], [_info("y", "n", 4)], constants)
    assert _agrees(model, _random(2, 4, 5, 5), _random(2, 4))
    batches = [{"facts": torch.randn(8, 4), "image": torch.randn(8, 4, 5, 5)} for _ in range(2)]
    sparse, _ = prune_onnx(model, batches, PruneSettings(include=("*",)))
    assert audit_model(sparse).sparse_layers == 2


def test_copies_share_the_file_but_not_the_weights(branches):
    network = OnnxNetwork(export_model(branches, (4, 8, 8)))
    other = copy.deepcopy(network)
    with torch.no_grad():
        other.get_submodule("left").weight.zero_()
    assert network.get_submodule("left").weight.any()
    images = torch.randn(2, 4, 8, 8)
    assert not torch.equal(network(images)["boxes"], other(images)["boxes"])
    other.load_state_dict(network.state_dict())
    assert torch.equal(network(images)["boxes"], other(images)["boxes"])


def test_an_image_in_bytes_with_channels_last(tmp_path: Path):
    """As TensorFlow exports: uint8 (N, H, W, C), a transposition around each convolution, and a bias added after it."""
    nodes = [
        helper.make_node("Cast", ["image"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["f"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["t", "w"], ["c"], "first"),
        helper.make_node("Conv", ["c", "v"], ["d"], "second"),
        helper.make_node("Transpose", ["d"], ["u"], perm=[0, 2, 3, 1]),
        helper.make_node("Add", ["u", "b"], ["a"]),
        helper.make_node("Relu", ["a"], ["y"]),
    ]
    constants = {"w": _random(8, 3, 1, 1), "v": _random(8, 8, 1, 1), "b": _random(8)}.items()
    inputs = [_info("image", "n", 5, 5, 3, kind=TensorProto.UINT8)]
    model = _model(nodes, inputs, [_info("y", "n", 5, 5, 8)], constants)
    images = np.random.default_rng(0).integers(0, 256, (16, 5, 5, 3)).astype(np.uint8)
    assert _agrees(model, images)
    network = OnnxNetwork(model)
    assert torch.equal(network(torch.from_numpy(images)), network(torch.from_numpy(images).float()))
    assert network.get_submodule("second").shift.tolist() == pytest.approx(_random(8).tolist())
    onnx.save(model, tmp_path / "bytes.onnx")
    config = onnx_config(tmp_path / "bytes.onnx")
    assert config == {"mean": [0.0], "std": [1 / 255], "image": [3, 5, 5], "channels_last": True}
    settings = PruneSettings(include=("second",))
    sparse, _ = prune_onnx(model, torch.from_numpy(images), settings)
    changed = [
        a.name
        for a, b in zip(model.graph.initializer, sparse.graph.initializer, strict=True)
        if a.SerializeToString() != b.SerializeToString()
    ]
    assert changed == ["v", "b"]
    without, _ = prune_onnx(model, torch.from_numpy(images), replace(settings, bias=False))
    means = [_run(each, images)[0].mean() for each in (model, sparse, without)]
    assert abs(means[1] - means[0]) < abs(means[2] - means[0])
