"""Files that others wrote, or broke: each is pruned, or refused with a reason."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest
import torch
from onnx import numpy_helper

from benchmarks.onnx.packaged import FILES, attempt
from export.audit import load_model
from export.importing import OnnxNetwork, prune_onnx
from sparsegpt_core.errors import InputError, ModelError
from sparsegpt_core.settings import PruneSettings


def test_every_file_of_the_onnx_package_is_pruned_or_refused():
    """Its real networks have weights that operators compute: they are found, and stay dense with that reason."""
    found = {path: attempt(load_model(path)) for path in FILES}
    pruned = [text for kind, text in found.values() if kind == "pruned"]
    refused = {
        path.parent.name if path.stem == "model" else path.stem: text
        for path, (kind, text) in found.items()
        if kind == "refused"
    }
    assert len(FILES) > 100
    assert len(pruned) >= 5
    assert refused["light_resnet50"] == "nothing to prune to 2:4: 53 NOT_CONSTANT"
    assert not [line for line in refused.values() if "\n" in line]


def _parsed(body: str, opset: int = 17) -> onnx.ModelProto:
    weight = "{" + ", ".join(str((37 * place % 17 - 8) / 8) for place in range(16)) + "}"
    header = f'<ir_version: 8, opset_import: ["": {opset}]> g (float[n, 4] x) => (float[n, 4] y)'
    return onnx.parser.parse_model(f"{header} <float[4, 4] w = {weight}, float[2, 4] c = {{1,2,3,4,5,6,7,8}}> {body}")


def _broken(kind: str) -> onnx.ModelProto:
    model = _parsed("{ a = MatMul (x, w)  y = Relu (a) }")
    graph = model.graph
    if kind == "a node without its weight":
        del graph.node[0].input[1]
    elif kind == "a sum of one":
        graph.node[1].op_type = "Add"
    elif kind == "a maximum of nothing":
        graph.node[1].op_type = "Max"
        graph.node[1].input.append("")
    elif kind == "an output that nothing computes":
        graph.output.add().CopyFrom(onnx.helper.make_tensor_value_info("z", 1, [2]))
    elif kind == "a type that does not exist":
        graph.initializer[1].data_type = 99
    elif kind == "two tensors of one name":
        graph.node[1].output[0] = "a"
    elif kind == "a shape that no tensor has":
        graph.initializer[1].dims[:] = [1 << 40, 1 << 40]
    elif kind == "a version that does not exist":
        model.opset_import[0].version = 1 << 40
    elif kind == "an attribute that the operator does not have":
        graph.node[0].attribute.append(onnx.helper.make_attribute("transB", 1))
    elif kind == "a name that is not UTF-8":
        content = model.SerializeToString().replace(b"MatMul", b"Mat\xfful")
        return onnx.ModelProto.FromString(content)
    return model


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("a node without its weight", "the node a is broken: .*input size 1"),
        ("a sum of one", "input size 1 not in range"),
        ("a maximum of nothing", "the node y is broken: one of its inputs has no name"),
        ("an output that nothing computes", "no node computes the graph's output 'z'"),
        ("a type that does not exist", "the tensor c has type 99, which does not exist"),
        ("two tensors of one name", "the tensor a is computed twice"),
        ("a shape that no tensor has", "the tensor c has an impossible shape"),
        ("a version that does not exist", "the file has the versions 8, 1099511627776, which do not exist"),
        ("an attribute that the operator does not have", "the node a is broken: .*Unrecognized attribute: transB"),
        ("a name that is not UTF-8", "the text .* in the file is not UTF-8"),
    ],
)
def test_a_broken_graph_is_refused(kind, line):
    with pytest.raises(ModelError, match=line):
        OnnxNetwork(_broken(kind))


@pytest.mark.parametrize(
    "attribute", [{"group": -1}, {"group": 3}, {"strides": [0, 1]}, {"pads": [1]}, {"dilations": [1]}]
)
def test_impossible_attributes_of_a_convolution(attribute):
    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["": 17]> g (float[n, 4, 3, 3] x) => (float[n, 4, 3, 3] y) { y = Conv (x, w) }
    """)
    model.graph.initializer.append(numpy_helper.from_array(np.ones((4, 4, 1, 1), np.float32), "w"))
    model.graph.node[0].attribute.extend(onnx.helper.make_attribute(*each) for each in attribute.items())
    with pytest.raises(ModelError, match="the attributes of the node y are impossible"):
        OnnxNetwork(model)


def test_a_constant_with_an_attribute_too_many_keeps_it():
    """ONNX Runtime takes the file."""
    model = _parsed("{ v = Constant <value = float[4, 4] {1,2,3,4,5,6,7,8,9,8,7,6,5,4,3,2}> ()  y = MatMul (x, v) }")
    model.graph.node[0].attribute.append(onnx.helper.make_attribute("transB", 1))
    network = OnnxNetwork(model)
    with torch.no_grad():
        network.get_parameter("y.weight").zero_()
    constant = network.to_onnx().graph.node[0]
    assert not numpy_helper.to_array(constant.attribute[0].t).any()
    assert [each.name for each in constant.attribute] == ["value", "transB"]


def test_a_transposed_convolution_of_no_groups():
    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["": 17]> g (float[n, 4, 3, 3] x) => (float[n, 4, 3, 3] y)
        { y = ConvTranspose <group = 0> (x, w) }
    """)
    model.graph.initializer.append(numpy_helper.from_array(np.ones((4, 4, 1, 1), np.float32), "w"))
    with pytest.raises(ModelError, match="the attributes of the node y are impossible"):
        OnnxNetwork(model)


def test_a_layer_that_multiplies_a_constant_stays_dense():
    """Its output may be one of the graph's, or read by a layer that is pruned."""
    model = _parsed("{ k = MatMul (c, w)  m = ReduceSum <keepdims = 0> (k)  a = MatMul (x, v)  y = Add (a, m) }")
    model.graph.initializer.append(numpy_helper.from_array(np.random.default_rng(0).random((4, 4), np.float32), "v"))
    model.graph.output.append(onnx.helper.make_tensor_value_info("k", 1, [2, 4]))
    x = torch.randn(8, 4)
    network = OnnxNetwork(model)
    c, w, v = (torch.from_numpy(numpy_helper.to_array(t).copy()) for t in (
        next(t for t in model.graph.initializer if t.name == name) for name in "cwv"
    ))  # fmt: skip
    found = network(x)
    assert torch.allclose(found["y"], x @ v + (c @ w).sum(), atol=1e-5)
    assert torch.allclose(found["k"], c @ w, atol=1e-5)
    _, result = prune_onnx(model, x, PruneSettings(include=("*",)))
    assert {layer.name: layer.reason and layer.reason.value for layer in result.layers} == {
        "k": "NOT_REACHED",
        "a": None,
    }


def test_a_batch_norm_of_a_constant():
    """ONNX Runtime computes it where it is an output of the graph."""
    model = _parsed("{ y = MatMul (x, w)  k = BatchNormalization (c, s, b, m, v) }")
    for number, name in enumerate("sbmv", 1):
        values = np.arange(number, number + 4, dtype=np.float32)
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    model.graph.output.append(onnx.helper.make_tensor_value_info("k", 1, [2, 4]))
    c, s, b, m, v = (
        numpy_helper.to_array(next(t for t in model.graph.initializer if t.name == name)) for name in "csbmv"
    )
    expected = (c - m) / np.sqrt(v + np.float32(1e-5)) * s + b
    sparse, _ = prune_onnx(model, torch.randn(8, 4), PruneSettings(include=("*",)))
    for each in (model, sparse):
        assert np.allclose(OnnxNetwork(each)(torch.randn(8, 4))["k"], expected, atol=1e-5)


def test_a_convolution_with_a_computed_kernel_stays_dense_beside_a_pruned_layer():
    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["": 17]> g (float[n, 4, 3, 3] x) => (float[n, 4, 3, 3] y)
        <int64[1] s = {0}> { k = ReduceMean <keepdims = 1, axes = [0]> (x)  a = Conv (x, w)
          z = Expand (k, e)  c = Conv (a, z)  b = Conv (a, w2)  y = Add (b, c) }
    """)
    for name in ("w", "w2"):
        values = np.random.default_rng(0).random((4, 4, 1, 1), np.float32)
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    model.graph.initializer.append(numpy_helper.from_array(np.int64([4, 4, 3, 3]), "e"))
    model.graph.node[3].attribute.append(onnx.helper.make_attribute("pads", [1, 1, 1, 1]))
    _, result = prune_onnx(model, torch.randn(8, 4, 3, 3), PruneSettings(include=("*",)))
    reasons = {layer.name: layer.reason and layer.reason.value for layer in result.layers}
    assert reasons == {"a": None, "c": "NOT_CONSTANT", "b": None}


def test_a_batch_that_is_a_number_is_refused():
    with pytest.raises(InputError, match="a batch is a single number"):
        prune_onnx(_parsed("{ y = MatMul (x, w) }"), torch.tensor(1.0), PruneSettings())


@pytest.mark.parametrize(("size", "expected"), [(1 << 40, 1 << 40), (-1, None)])
def test_a_batch_of_impossible_size(size, expected):
    """A huge one is not tried out; a negative one means any."""
    model = _parsed("{ y = MatMul (x, w) }")
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = size
    assert OnnxNetwork(model).batch_size == expected
