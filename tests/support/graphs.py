"""Helpers that several test files share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import GraphProto, TensorProto, helper, numpy_helper


def make_graph(nodes, tensors=None, inputs=()):
    """A graph whose outputs are its last node's; ``tensors`` are initializers by name."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in inputs]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in nodes[-1].output[:1]]
    initializers = [
        tensor if isinstance(tensor, TensorProto) else numpy_helper.from_array(np.asarray(tensor), name)
        for name, tensor in (tensors or {}).items()
    ]
    return helper.make_graph(nodes, "graph", values, outputs, initializers)


def make_model(graph: GraphProto):
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def edited(proto: onnx.ModelProto, name: str, edit) -> onnx.ModelProto:
    """A copy with one initializer changed in place by ``edit``."""
    changed = onnx.ModelProto()
    changed.CopyFrom(proto)
    tensor = next(tensor for tensor in changed.graph.initializer if tensor.name == name)
    value = numpy_helper.to_array(tensor).copy()
    edit(value)
    tensor.CopyFrom(numpy_helper.from_array(value, name))
    return changed


NOTHING = {"w": np.random.default_rng(0).standard_normal((64, 10)).astype("f")}


def model(weight=NOTHING["w"], dtype=onnx.TensorProto.FLOAT):
    """One matrix behind images of digits."""
    nodes = [helper.make_node("Reshape", ["x", "s"], ["f"]), helper.make_node("MatMul", ["f", "w"], ["y"], name="m")]
    x = helper.make_tensor_value_info("x", dtype, ["N", 1, 8, 8])
    y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 10])
    if isinstance(weight, np.ndarray):
        weight = numpy_helper.from_array(weight, "w")
    tensors = [weight, numpy_helper.from_array(np.array([0, -1]), "s")]
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(helper.make_graph(nodes, "g", [x], [y], tensors), opset_imports=opsets, ir_version=9)


def save_maps(path: Path, weight: np.ndarray) -> None:
    """Write a network of maps: one 1×1 convolution."""
    images, maps = (
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", channels, 4, 4])
        for name, channels in (("image", 4), ("maps", 4))
    )
    node = helper.make_node("Conv", ["image", "weight"], ["maps"], name="conv")
    graph = helper.make_graph([node], "maps", [images], [maps], [numpy_helper.from_array(weight, "weight")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
