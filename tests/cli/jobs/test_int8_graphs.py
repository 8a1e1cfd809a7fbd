import numpy as np
import onnxruntime
import pytest
import torch

from calibration.ranges import METHODS
from export.writing import export_model
from sparsegpt_cli.jobs.int8_graphs import Quantisation, quantise_graph
from sparsegpt_core.zoo import ModelShape, build_model
from tests.support.exports import METADATA, prepared


@pytest.fixture(scope="module")
def network():
    """A small network whose inputs have rare outliers, and calibration batches of which the fourth and last judges."""
    torch.manual_seed(0)
    model = prepared(build_model("simple_cnn", ModelShape((1, 8, 8), 10)))
    batches = [torch.randn(8, 1, 8, 8) ** 3 for _ in range(4)]
    return model, export_model(model, (1, 8, 8), METADATA), Quantisation(batches)


def run(graph, images):
    return onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"]).run(
        None, {"input": images.numpy()}
    )[0]


def test_auto_is_never_worse_than_one_method_for_all(network):
    model, graph, quantisation = network
    judging = quantisation.batches[-1]
    expected = run(graph, judging)

    def error(method):
        quantised = quantise_graph(graph, quantisation, model.state_dict(), method, ends=True)
        return np.square(run(quantised, judging) - expected).sum()

    errors = {method: error(method) for method in METHODS}
    assert error("auto") <= min(errors.values())
    assert min(errors.values()) < 0.9 * max(errors.values())


def test_one_batch_has_to_judge_too(network):
    model, graph, quantisation = network
    few = Quantisation(quantisation.batches[:2])
    assert any(node.op_type == "QuantizeLinear" for node in quantise_graph(graph, few, model.state_dict()).graph.node)
