"""INT8 graphs: the choice of ranges, the images that judge it, and the layers that stay in FP32."""

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from calibration.ranges import METHODS, calibrate
from export.writing import export_model
from sparsegpt_cli.jobs import int8_graphs
from sparsegpt_cli.jobs.int8_graphs import Int8Quantiser, quantise_model
from sparsegpt_core.zoo import ModelShape, build_model
from tests.support.exports import METADATA, prepared


@pytest.fixture(scope="module")
def network():
    """A small network whose inputs have rare outliers, and four calibration batches. The last one judges."""
    torch.manual_seed(0)
    network = prepared(build_model("simple_cnn", ModelShape((1, 8, 8), 10)))
    batches = [torch.randn(8, 1, 8, 8) ** 3 for _ in range(4)]
    return network, export_model(network, (1, 8, 8), METADATA), Int8Quantiser(batches)


def run(model, images):
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(
        None, {"input": images.numpy()}
    )[0]


def test_auto_is_never_worse_than_one_method_for_all(network):
    network, model, quantiser = network
    held_out = quantiser.batches[-1]
    expected = run(model, held_out)

    def error(method):
        quantised = quantise_model(model, quantiser, network.state_dict(), method, ends=True)
        return np.square(run(quantised, held_out) - expected).sum()

    errors = {method: error(method) for method in METHODS}
    assert error("auto") <= min(errors.values())
    assert min(errors.values()) < 0.9 * max(errors.values())


@pytest.mark.parametrize(
    ("sizes", "fitted", "judging"),
    [
        ([2] * 8, [0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13], [6, 7, 14, 15]),
        ([2, 2, 2], [0, 1, 2, 3], [4, 5]),
        ([2, 1], [0, 1], [2]),
        ([5], [0, 1, 2], [3, 4]),
        ([1], [0], [0]),
    ],
)
def test_held_out_images_judge_the_ranges(network, monkeypatch, sizes, fitted, judging):
    network, model, _ = network
    torch.manual_seed(0)
    images = torch.randn(sum(sizes), 1, 8, 8)
    seen = []

    def recording(observe, fit, held_out, *others):
        seen.extend(np.concatenate([images for (images,) in batches]) for batches in (fit, held_out))
        return calibrate(observe, fit, held_out, *others)

    monkeypatch.setattr(int8_graphs, "calibrate", recording)
    quantise_model(model, Int8Quantiser(images.split(sizes)), network.state_dict(), "max")
    np.testing.assert_array_equal(seen[0], images[fitted])
    np.testing.assert_array_equal(seen[1], images[judging])


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_the_ends_become_int8_where_no_other_layer_is_left(layers):
    torch.manual_seed(0)
    network = nn.Sequential(*(nn.Conv2d(4, 4, 1) for _ in range(layers))).eval()
    quantiser = Int8Quantiser([torch.randn(2, 4, 8, 8)])
    quantised = quantise_model(export_model(network, (4, 8, 8)), quantiser, network.state_dict(), "max")
    stored = {node.input[0] for node in quantised.graph.node if node.op_type == "DequantizeLinear"}
    weights = [tensor for tensor in quantised.graph.initializer if tensor.name in stored]
    assert len(weights) == {1: 1, 2: 2, 3: 1}[layers]


def test_all_calls_of_one_layer_are_its_ends():
    class Repeated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 1)

        def forward(self, x):
            return self.conv(self.conv(self.conv(x)))

    network = Repeated().eval()
    quantiser = Int8Quantiser([torch.randn(2, 4, 8, 8)])
    quantised = quantise_model(export_model(network, (4, 8, 8)), quantiser, network.state_dict(), "max")
    assert sum(node.op_type == "QuantizeLinear" for node in quantised.graph.node) == 3
