"""The one way to open an ONNX Runtime session."""

import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto
from onnx.helper import make_node, make_tensor_value_info

from export.onnxruntime_session import open_session
from export.precision import to_fp16
from export.writing import export_model
from sparsegpt_core.errors import InputError, ModelError
from tests.support.graphs import make_graph, make_model
from tests.support.networks import AttentionNet

RELU = make_model(make_graph([make_node("Relu", ["x"], ["y"])], inputs=["x"])).SerializeToString()


def test_options_reach_onnx_runtime():
    session = open_session(RELU, "relu", threads=3, optimize=False)
    assert session.get_session_options().intra_op_num_threads == 3
    assert session.get_session_options().graph_optimization_level.name == "ORT_DISABLE_ALL"
    assert session.get_providers() == ["CPUExecutionProvider"]


def test_a_model_that_cannot_be_loaded_is_one_line_of_error(capfd):
    with pytest.raises(ModelError, match="cannot load broken") as caught:
        open_session(RELU[:-5], "broken")
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    assert capfd.readouterr() == ("", "")


def test_a_provider_that_fails_is_an_error_and_not_the_cpu(monkeypatch, capfd):
    """ONNX Runtime itself prints to standard output, and goes on with the CPU."""
    create = onnxruntime.InferenceSession._create_inference_session

    def refuse(self, providers, *rest):
        if "CPUExecutionProvider" not in providers:
            self._fallback_providers = ["CPUExecutionProvider"]
            raise RuntimeError("Please install TensorRT libraries")
        create(self, providers, *rest)

    monkeypatch.setattr(onnxruntime.InferenceSession, "_create_inference_session", refuse)
    with pytest.raises(
        InputError, match="TensorrtExecutionProvider cannot run relu: Please install TensorRT"
    ) as caught:
        open_session(RELU, "relu", provider="TensorrtExecutionProvider", provider_options={"trt_sparsity_enable": "1"})
    assert "LD_LIBRARY_PATH" in caught.value.hint
    assert capfd.readouterr().out == ""


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_provider_that_is_left_out_is_an_error():
    with pytest.raises(InputError, match="does not start, so ONNX Runtime would run relu on the CPU"):
        open_session(RELU, "relu", provider="XnnpackExecutionProvider")


def test_dynamic_sizes_can_be_fixed():
    graph = make_graph([make_node("Relu", ["x"], ["y"])])
    graph.input.append(make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3]))
    session = open_session(make_model(graph).SerializeToString(), "relu", sizes={"N": 5})
    assert session.get_inputs()[0].shape == [5, 3]


def test_fp16_attention_after_a_layer_norm_does_not_end_the_process(tmp_path):
    """ONNX Runtime 1.24 to 1.32 crash on this file in their NchwcTransformer. A child process opens the session."""
    torch.manual_seed(0)
    network = AttentionNet().eval()
    path = tmp_path / "attention.onnx"
    path.write_bytes(to_fp16(export_model(network, (3, 32, 32)), "fp32").SerializeToString())
    code = f"""if True:
        import numpy, pathlib
        from export.onnxruntime_session import open_session
        path, images = pathlib.Path({str(path)!r}), numpy.ones((1, 3, 32, 32), numpy.float32)
        for model in (str(path), path.read_bytes()):
            output = open_session(model, "attention").run(None, {{"input": images}})[0]
        numpy.save({str(tmp_path / "output.npy")!r}, output)
    """
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert child.returncode == 0, f"{child.returncode}: {child.stderr}"
    with torch.inference_mode():
        expected = network(torch.ones(1, 3, 32, 32)).numpy()
    assert np.abs(np.load(tmp_path / "output.npy") - expected).max() < 0.01 * np.abs(expected).max()


def test_an_fp32_graph_keeps_every_optimizer(monkeypatch):
    """Without the NchwcTransformer, FP32 convolutions take 1.5 to 2.4 times as long on the CPU."""
    opened = []
    real = onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *args, **kw: opened.append(kw) or real(*args, **kw))
    open_session(RELU, "relu")
    assert [each["disabled_optimizers"] for each in opened] == [None]


def test_a_session_needs_no_torch():
    code = "import sys, export.onnxruntime_session; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
