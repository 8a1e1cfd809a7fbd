"""The estimate of an engine's GPU memory."""

from __future__ import annotations

import onnx
import pytest
from onnx import TensorProto, helper
from torchvision.models import resnet18

from deploy.graph import estimate_memory
from export.writing import export_model


def test_a_branch_stays_alive_until_its_last_reader() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]>
        g (float16[N, 4] x) => (float16[N, 4] y) <float16[4] w = {1, 2, 3, 4}>
        { kept = Add(x, w)  a = Relu(kept)  b = Relu(a)  unused = Neg(b)  c = Relu(b)  y = Add(c, kept) }"""
    )
    found = estimate_memory(model, {"x": (8, 4)})
    tensor = 8 * 4 * 2
    assert found.weights == 4 * 2
    assert found.context == (2 + 3) * tensor  # x and y; kept, a and b


def test_types_count_and_large_weights_are_not_read() -> None:
    graph = helper.make_graph(
        [
            helper.make_node("DequantizeLinear", ["w", "s"], ["d"]),
            helper.make_node("MatMul", ["x", "d"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 64])],
        [
            helper.make_tensor("w", TensorProto.INT8, (64, 64), bytes(64 * 64), raw=True),
            helper.make_tensor("s", TensorProto.FLOAT, (), [0.5]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    found = estimate_memory(model, {"x": (2, 64)})
    assert found.weights == 64 * 64 + 4
    assert found.context == 2 * 2 * 64 * 4 + 64 * 64 * 4  # x, y and the weight in FP32


def test_a_network() -> None:
    """The first convolution's output and its copy after ReLU are alive together, next to the images."""
    network = resnet18(weights=None).eval()
    model = export_model(network, (3, 224, 224))
    found = estimate_memory(model, {model.graph.input[0].name: (16, 3, 224, 224)})
    values = 3 * 224 * 224 + 1000 + 2 * 64 * 112 * 112
    assert found.context == 4 * 16 * values
    assert found.weights == pytest.approx(4 * sum(each.numel() for each in network.parameters()), rel=0.01)
