"""Tensors inside a graph, compared with PyTorch's hooks."""

import numpy as np
import onnx
import pytest
import torch

from export.execution import observe_activations
from export.writing import export_model
from sparsegpt_core.errors import ModelError
from tests.support.exports import prepared
from tests.support.networks import Mixer

IMAGES = np.random.default_rng(0).normal(size=(5, 4, 8, 8)).astype(np.float32)


@pytest.fixture(scope="module")
def mixer():
    model = prepared(Mixer())
    return model, export_model(model, (4, 8, 8))


def test_tensors_are_pytorchs(mixer):
    model, proto = mixer
    nodes = {node.name: node for node in proto.graph.node}
    names = [nodes["conv"].output[0], nodes["shared#2"].input[0], "input", "logits"]
    before = proto.SerializeToString()
    seen = []
    hooks = [
        model.norm.register_forward_hook(lambda _m, _i, out: seen.append(out)),
        model.shared.register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0])),
    ]
    with torch.inference_mode():
        logits = model(torch.from_numpy(IMAGES))
    for hook in hooks:
        hook.remove()
    observe = observe_activations(proto, names)
    found = observe(IMAGES)
    assert list(found) == names
    for actual, expected in zip(found.values(), (seen[0], seen[2], torch.from_numpy(IMAGES), logits), strict=True):
        np.testing.assert_allclose(actual, expected.numpy(), atol=1e-5)
    np.testing.assert_allclose(observe(IMAGES[:2])["logits"], logits[:2].numpy(), atol=1e-5)
    assert proto.SerializeToString() == before
    assert list(observe_activations(proto, ["input", "input"])(IMAGES)) == ["input"]


def test_several_inputs_are_observed_in_the_graphs_order():
    model = onnx.parser.parse_model("""<ir_version: 9, opset_import: ["": 17]>
        g (float[N, 2] a, int64[N, 1] b) => (float[N, 2] y) { c = Cast<to = 1>(b) y = Add(a, c) }""")
    arrays = [np.ones((3, 2), np.float32), np.arange(3)[:, None]]
    found = observe_activations(model, ["c", "a"])(arrays)
    np.testing.assert_array_equal(found["c"], arrays[1])
    np.testing.assert_array_equal(found["a"], arrays[0])


def test_what_cannot_be_observed(mixer, capfd):
    proto = mixer[1]
    with pytest.raises(ModelError, match="no tensor 'nowhere'"):
        observe_activations(proto, ["nowhere"])
    with pytest.raises(ModelError, match="cannot run the graph") as caught:
        observe_activations(proto, ["logits"])(IMAGES[:, :1])
    assert "\n" not in str(caught.value)
    broken = onnx.ModelProto()
    broken.CopyFrom(proto)
    broken.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(ModelError, match="cannot load the graph"):
        observe_activations(broken, ["logits"])
    assert capfd.readouterr() == ("", "")
