"""Commands on streams that cannot take all of their output."""

import os
import subprocess
import sys

import numpy as np
import onnx
import pytest

from tests.support.paths import ROOT


@pytest.fixture
def dense_file(tmp_path):
    """An ONNX file with one layer that does not satisfy 2:4."""
    weight = onnx.numpy_helper.from_array(np.ones((8, 8), np.float32), "w")
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[N, 8] x) => (float[N, 8] y) { y = MatMul(x, w) }'
    )
    model.graph.initializer.extend([weight])
    path = tmp_path / "dense.onnx"
    onnx.save(model, path)
    return path


def _start(*arguments, **options) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "sparsegpt_cli", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **options.pop("env", {})}
    return subprocess.Popen(command, encoding="latin-1", env=environment, stderr=subprocess.PIPE, **options)


@pytest.mark.parametrize(("arguments", "code"), [([], 0), (["--json"], 0), (["--fail-on", "dense"], 1)])
def test_a_closed_pipe_does_not_change_the_exit_status(dense_file, arguments, code):
    reader, writer = os.pipe()
    os.close(reader)
    process = _start("verify", dense_file, *arguments, stdout=writer)
    os.close(writer)
    _, errors = process.communicate()
    assert process.returncode == code
    assert "Traceback" not in errors
    assert "BrokenPipe" not in errors
    assert ("--fail-on dense: 1 of 1" in errors) == bool(code)


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1"},
        {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"},
    ],
)
def test_a_stream_without_utf_8_gets_ascii(tmp_path, environment):
    weight = onnx.numpy_helper.from_array(np.ones((512, 512), np.float16), "w")
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float16[N, 512] x) => (float16[N, 512] y) { y = MatMul(x, w) }'
    )
    model.graph.initializer.extend([weight])
    path = tmp_path / "net.onnx"
    onnx.save(model, path)
    process = _start("predict", path, "--shapes", "1/1/1", stdout=subprocess.PIPE, env=environment)
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    assert "An estimate from layer shapes" in output
    assert ("512x512" in output) == ("latin-1" not in environment.values())
    assert "Traceback" not in errors
