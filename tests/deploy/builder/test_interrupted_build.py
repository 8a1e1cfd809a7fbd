"""Ctrl-C during a real build of several seconds. TensorRT drops the exceptions of its logger."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tests.support.paths import ROOT

CONVOLUTIONS = 1500  # 7 seconds on two cores
COMMAND = """
import signal, sys
from sparsegpt_cli.app import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job has it ignored
sys.exit(main())
"""


@pytest.fixture
def deep(tmp_path: Path) -> Path:
    """A chain of convolutions with SiLU."""
    rng, nodes, weights, last = np.random.default_rng(0), [], [], "input"
    for index in range(CONVOLUTIONS):
        weight = rng.normal(size=(16, 16, 3, 3)).astype(np.float16)
        weights.append(numpy_helper.from_array(weight, f"weight{index}"))
        nodes += [
            helper.make_node("Conv", [last, f"weight{index}"], [f"conv{index}"], pads=[1] * 4),
            helper.make_node("Sigmoid", [f"conv{index}"], [f"sigmoid{index}"]),
            helper.make_node("Mul", [f"conv{index}", f"sigmoid{index}"], [f"silu{index}"]),
        ]
        last = f"silu{index}"
    kind = onnx.TensorProto.FLOAT16
    graph = helper.make_graph(
        nodes,
        "deep",
        [helper.make_tensor_value_info("input", kind, ["N", 16, 32, 32])],
        [helper.make_tensor_value_info(last, kind, ["N", 16, 32, 32])],
        weights,
    )
    path = tmp_path / "deep.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


@pytest.mark.alone
@pytest.mark.parametrize("wait_s", [0.0, 1.0])
def test_ctrl_c_ends_a_build(deep: Path, wait_s: float) -> None:
    pytest.importorskip("tensorrt_rtx", reason="engines are built for real, which needs tensorrt-rtx")
    build = ["build", str(deep), "--backend", "tensorrt-rtx", "--compute-capability", "8.6", "--json"]
    with subprocess.Popen(
        [sys.executable, "-c", COMMAND, *build],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        assert process.stderr is not None
        while not process.stderr.readline().startswith("build ..."):
            assert process.poll() is None
        time.sleep(wait_s)
        pressed = time.monotonic()
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=60)
        seconds = time.monotonic() - pressed
    assert process.returncode == 130
    assert json.loads(out)["error"] == "interrupted"
    assert "build 100/100" not in errors
    assert "Traceback" not in errors
    assert [path.name for path in deep.parent.iterdir()] == ["deep.onnx"]
    assert seconds < 1.5  # the build would go on for several seconds
