"""The real TensorRT 8.6.0 up to the point where it needs the driver: standard output is one JSON object.

TensorRT does not accept the stand-in driver either, which has NVIDIA's public interfaces only. With it PyCUDA finds a
GPU, so that a benchmark reaches its first build.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.support.engines import conv_net
from tests.support.paths import ROOT
from tests.support.standin import BINDINGS, compile_library, environment

pytestmark = pytest.mark.skipif(not BINDINGS.is_dir(), reason="`make gpu-contract` installs TensorRT 8.6.0")


@pytest.fixture(scope="module")
def plugin(tmp_path_factory) -> Path:
    """An empty plugin library, in place of the one that needs cuBLAS and cuDNN. CNNs use no plugins."""
    return compile_library(
        tmp_path_factory.mktemp("plugin") / "libnvinfer_plugin.so.8", empty=["initLibNvInferPlugins"]
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = conv_net()
    onnx.save(model, str(tmp_path / "sparse.onnx"))
    for weight in model.graph.initializer:
        values = numpy_helper.to_array(weight)
        weight.CopyFrom(numpy_helper.from_array(np.where(values == 0, values.dtype.type(1), values), weight.name))
    onnx.save(model, str(tmp_path / "dense.onnx"))
    rng = np.random.default_rng(0)
    for name in ("train", "test"):
        np.savez(tmp_path / f"{name}.npz", images=rng.integers(0, 256, (8, 3, 8, 8), dtype=np.uint8))
    return tmp_path


def run(folder: Path, libraries: list[Path], *arguments: str) -> subprocess.CompletedProcess[str]:
    variables = {"LD_PRELOAD": ":".join(map(str, libraries)), "PYTHONPATH": str(ROOT), "PATH": "/nowhere"}
    command = [sys.executable, "-m", "sparsegpt_cli", *arguments]
    return subprocess.run(command, cwd=folder, env=environment(**variables), capture_output=True, text=True)


BUILD = ("build", "sparse.onnx", "--out", "m.plan", "--json")
BENCHMARK = (
    "benchmark",
    "dense.onnx",
    "sparse.onnx",
    "--data",
    "npz:train.npz",
    "--eval-data",
    "npz:test.npz",
    "--json",
)


@pytest.mark.parametrize("arguments", [BUILD, (*BUILD, "--timing-cache", "m.cache"), (*BUILD, "--shapes", "1/2/4")])
def test_build(plugin, folder, arguments) -> None:
    check(run(folder, [plugin], *arguments))
    assert sorted(path.name for path in folder.iterdir()) == ["dense.onnx", "sparse.onnx", "test.npz", "train.npz"]


@pytest.mark.parametrize(
    "arguments",
    [(*BENCHMARK, "--runtime", "tensorrt"), BENCHMARK, ("predict", "sparse.onnx", "--measure", "--json"), BUILD],
)
def test_commands_that_look_for_a_gpu(plugin, loaded_driver, folder, arguments) -> None:
    check(run(folder, [plugin, loaded_driver.path], *arguments))


def check(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 1, done.stderr
    said = json.loads(done.stdout)  # one object, and nothing else
    assert set(said) == {"error", "hint"}
    assert said["error"].startswith("tensorrt cannot build ")
    assert "CUDA initialization failure with error: 3" in said["error"]  # 35 without a driver, 36 with the stand-in
    *progress, last = done.stderr.splitlines()
    assert last.startswith(f"error: {said['error']}")
    assert not [line for line in progress if line.startswith("[")]  # TensorRT's and Polygraphy's own lines


def test_doctor(plugin, folder) -> None:
    checks = {check["name"]: check for check in json.loads(run(folder, [plugin], "doctor", "--json").stdout)["checks"]}
    assert checks["tensorrt"]["detail"] == "8.6.0"
    assert not checks["GPU"]["ok"]


def test_a_library_that_tensorrt_lacks_is_named(folder) -> None:
    """Without the stand-in for the plugin library, TensorRT looks for cuBLAS and cuDNN."""
    checks = {check["name"]: check for check in json.loads(run(folder, [], "doctor", "--json").stdout)["checks"]}
    assert not checks["tensorrt"]["ok"]
    assert re.fullmatch(
        r"Install libcu(dnn|blas|blasLt)\.so\.[0-9]+, or add its folder to LD_LIBRARY_PATH\.", checks["tensorrt"]["fix"]
    )
