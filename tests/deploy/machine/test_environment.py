"""The description of a machine, and that deploy loads on a machine without any library."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import deploy
from deploy.machine import GPU, INSTALL, check_machine, describe_environment, find_runtime, require
from sparsegpt_core.errors import InputError, MissingDependencyError

ROOM = Path(deploy.__file__).parent
MODULES = sorted(ROOM.rglob("*.py"))
HEAVY = ["torch", "torchvision", "tensorrt", "tensorrt_rtx", "polygraphy", "onnx", "onnxruntime", "pycuda", "sklearn"]


def test_environment_is_json() -> None:
    found = json.loads(json.dumps(describe_environment(), allow_nan=False))
    assert found["python"] == sys.version.split()[0]
    assert found["memory_bytes"] > 1 << 28
    assert found["versions"]["numpy"]
    assert set(found["versions"]) >= {"onnx", "onnxruntime", "torch", "tensorrt", "tensorrt_rtx", "polygraphy"}


def test_require() -> None:
    assert require("json") is json
    for name in INSTALL:
        assert INSTALL[name].startswith("pip install ")


def test_doctor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, code in {
        "timm": "raise OSError('odd')",
        "pynvml": "import ctypes; ctypes.CDLL('libcudnn_of_test.so.8')",
        "pycuda": "raise ImportError",
        "torchvision": "raise SystemError('half installed')",
    }.items():
        (tmp_path / f"{name}.py").write_text(code)
        for loaded in [key for key in sys.modules if key.partition(".")[0] == name]:
            monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delattr("onnx.__version__")  # PyCUDA has none either
    checks = {check.name: check for check in check_machine()}
    assert set(checks) == {*HEAVY, "cuda", "pynvml", "timm", "GPU"}
    assert checks["onnx"].ok
    assert (checks["onnx"].detail, checks["onnx"].fix) == (metadata.version("onnx"), "")
    assert not checks["timm"].ok
    assert checks["timm"].optional
    assert "(cannot import timm: odd)" in checks["timm"].detail
    assert checks["timm"].fix == "pip install timm"
    assert checks["pynvml"].fix == "Install libcudnn_of_test.so.8, or add its folder to LD_LIBRARY_PATH."
    assert not checks["torchvision"].optional


PROBE = """
import sys, time, numpy
start = time.process_time()
for name in {names}:
    __import__(name)
seconds = time.process_time() - start
from deploy.machine.backends import find_backend
from sparsegpt_core.errors import MissingDependencyError
try:
    find_backend()
except MissingDependencyError as error:
    print(seconds, error.hint)
"""


def test_deploy_loads_on_a_bare_machine(tmp_path: Path) -> None:
    for name in HEAVY:
        (tmp_path / f"{name}.py").write_text(f"raise ImportError('no {name} here')")
    root = ROOM.parent
    names = [".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__") for path in MODULES]
    answer = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROBE.format(names=names)],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{root}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    seconds, hint = answer.stdout.strip().split(" ", 1)
    assert float(seconds) < 0.3
    assert {command.partition(" (")[0] for command in hint.split(", or ")} == {
        "pip install tensorrt",
        "pip install tensorrt-rtx-cu13",
    }


def test_a_missing_library_comes_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "polygraphy", None)
    with pytest.raises(MissingDependencyError, match="cannot import polygraphy") as caught:
        require("polygraphy")
    assert caught.value.hint == "pip install polygraphy"


def test_a_gpu_that_tensorrt_rtx_does_not_know_takes_onnx_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorrt_rtx", reason="its own list of GPUs is read")
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setenv("POLYGRAPHY_USE_TENSORRT_RTX", "1")
    hopper = GPU("NVIDIA H100", "580.65", "9.0", "13.0")
    monkeypatch.setattr("deploy.machine.runtime_choice.find_gpu", lambda: hopper)
    backend, why = find_runtime("auto")
    assert backend is None
    assert "does not build for NVIDIA H100, compute capability 9.0" in why
    with pytest.raises(InputError, match=r"compute capability 9\.0"):
        find_runtime("tensorrt")
