"""The one way to open an ONNX Runtime session."""

import subprocess
import sys

import pytest
from onnx.helper import make_node

from export.onnxruntime_session import open_session
from sparsegpt_core.errors import ModelError
from tests.support.graphs import make_graph, make_model

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


def test_a_session_needs_no_torch():
    code = "import sys, export.onnxruntime_session; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
