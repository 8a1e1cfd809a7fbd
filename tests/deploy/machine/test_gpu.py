"""The GPU that CUDA uses, on pretended machines: processes with a stand-in driver and a stand-in nvidia-smi."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
import pytest

from tests.support.engines import conv_net
from tests.support.paths import ROOT
from tests.support.standin import LIBCUDA

TWO = "NVIDIA A100:8:0,Quadro P400:6:1"  # CUDA's order: the fastest first
# nvidia-smi's order is that of the PCI addresses.
SMI = """case $* in
*=driver_version*) echo 550.54.15; echo 550.54.15 ;;
*) echo 'Quadro P400, 550.54.15, 6.1'; echo 'NVIDIA A100, 550.54.15, 8.0' ;;
esac"""
A100, P400 = ("NVIDIA A100", "8.0"), ("Quadro P400", "6.1")


@dataclass
class Machine:
    """A pretended machine, and what must be found on it."""

    found: tuple[str, str] | None
    """Name and compute capability of the GPU that CUDA uses."""
    driver: str | None = None
    """The driver's version."""
    smi: str | None = None
    """The script of nvidia-smi; None without it."""
    environment: dict[str, str] = field(default_factory=dict)
    """Variables of the stand-in driver and of CUDA."""
    has_driver: bool = True
    """Whether there is a libcuda.so.1."""
    problem: str = ""
    """What the doctor says where no GPU is found."""
    fix: str = ""
    """What the doctor advises."""


MACHINES = {
    "two GPUs": Machine(A100, "550.54.15", SMI, {"FAKE_GPUS": TWO}),
    "the second of two": Machine(P400, "550.54.15", SMI, {"FAKE_GPUS": TWO, "CUDA_VISIBLE_DEVICES": "1"}),
    "nvidia-smi's order": Machine(
        A100, "550.54.15", SMI, {"FAKE_GPUS": "Quadro P400:6:1,NVIDIA A100:8:0", "CUDA_VISIBLE_DEVICES": "1"}
    ),
    "PyCUDA's second GPU": Machine(P400, "550.54.15", SMI, {"FAKE_GPUS": TWO, "FAKE_CONTEXT": "1"}),
    "MIG": Machine(("NVIDIA A100 MIG 1g.5gb", "8.0"), "550.54.15", SMI, {"FAKE_GPUS": "NVIDIA A100 MIG 1g.5gb:8:0"}),
    "no nvidia-smi": Machine(("Orin", "8.7"), None, None, {"FAKE_GPUS": "Orin:8:7"}),
    "JetPack": Machine(("Orin", "8.7"), "540.4.0", "echo 540.4.0", {"FAKE_GPUS": "Orin:8:7", "FAKE_CUDA": "12060"}),
    "N/A": Machine(("Orin", "8.7"), None, "echo '[N/A]'", {"FAKE_GPUS": "Orin:8:7"}),
    "nvidia-smi fails": Machine(A100, None, "echo 550.54; exit 9", {"FAKE_GPUS": TWO}),
    "nvidia-smi is silent": Machine(A100, None, "true", {"FAKE_GPUS": TWO}),
    "hidden": Machine(
        None,
        smi=SMI,
        environment={"FAKE_GPUS": TWO, "CUDA_VISIBLE_DEVICES": ""},
        problem="no CUDA-capable device is detected, and CUDA_VISIBLE_DEVICES is ''",
        fix="unset it",
    ),
    "a wrong number": Machine(
        None,
        environment={"FAKE_GPUS": TWO, "CUDA_VISIBLE_DEVICES": "7"},
        problem="CUDA_VISIBLE_DEVICES is '7'",
        fix="nvidia-smi -L",
    ),
    "no GPU": Machine(None, problem="no CUDA-capable device is detected", fix="docker run --gpus all"),
    "the stub of CUDA's toolkit": Machine(
        None, environment={"FAKE_CUINIT": "34"}, problem="error 34", fix="nvidia-smi"
    ),
    "no driver, but nvidia-smi": Machine(
        None,
        smi=SMI,
        has_driver=False,
        problem="there is no NVIDIA driver: libcuda.so.1 cannot be loaded",
        fix="docker run --gpus all",
    ),
    "nothing": Machine(None, has_driver=False, problem="there is no NVIDIA driver", fix="Install NVIDIA's driver"),
}

HEAVY = ["torch", "torchvision", "onnx", "onnxruntime", "sklearn", "timm", "polygraphy"]
HEAVY += ["tensorrt", "tensorrt_rtx", "pycuda", "cuda", "pynvml"]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the stand-in libcuda.so.1."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    folder = tmp_path_factory.mktemp("driver")
    command = [compiler, "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-o", folder / "libcuda.so.1", LIBCUDA]
    subprocess.run(command, check=True)
    return folder


@pytest.fixture
def on(tmp_path: Path, driver: Path):
    """Run code on a machine, in a process that cannot import libraries of any size; returns what it prints as JSON."""

    def run(machine: Machine, code: str) -> Any:
        programs = tmp_path / "programs"
        programs.mkdir()
        if machine.smi is not None:
            smi = programs / "nvidia-smi"
            smi.write_text(f"#!/bin/sh\necho call >>{tmp_path / 'calls'}\n{machine.smi}\n")
            smi.chmod(0o755)
        if not machine.has_driver:  # a file that is no library hides this machine's own driver
            driver_folder = tmp_path / "driver"
            driver_folder.mkdir()
            (driver_folder / "libcuda.so.1").touch()
        own = ("CUDA_", "FAKE_")  # this machine's own settings
        environment = {key: value for key, value in os.environ.items() if not key.startswith(own)}
        environment |= {"PATH": str(programs), "PYTHONPATH": str(ROOT), **machine.environment}
        environment["LD_LIBRARY_PATH"] = str(driver if machine.has_driver else tmp_path / "driver")
        missing = f"import sys, json\nsys.modules.update(dict.fromkeys({HEAVY}))\n"
        done = subprocess.run(
            [sys.executable, "-c", missing + code], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


DESCRIBE = """
from dataclasses import asdict
from deploy.machine import check_machine, describe_environment, find_gpu
gpu = find_gpu()
print(json.dumps([gpu and asdict(gpu), describe_environment()["gpu"], asdict(check_machine()[-1])]))
"""


@pytest.mark.parametrize("name", MACHINES)
def test_the_gpu_that_cuda_uses_is_described(on, tmp_path: Path, name: str) -> None:
    machine = MACHINES[name]
    gpu, described, check = on(machine, DESCRIBE)
    assert gpu == described
    if machine.found is None:
        assert gpu is None
        assert not check["ok"]
        assert machine.problem in check["detail"]
        assert machine.fix in check["fix"]
        return
    cuda = machine.environment.get("FAKE_CUDA", "13000")
    assert (gpu["name"], gpu["compute_capability"]) == machine.found
    assert (gpu["driver"], gpu["cuda"]) == (machine.driver, f"{cuda[:2]}.{int(cuda[2:4])}")
    assert check["ok"]
    assert check["detail"].startswith(", compute capability ".join(machine.found))
    if machine.smi is not None:  # find_gpu ran four times
        assert (tmp_path / "calls").read_text() == "call\n"


BUILD = """
for name in ("onnx", "polygraphy", "tensorrt_rtx"):
    del sys.modules[name]
import tensorrt_rtx
tensorrt = sys.modules["tensorrt"] = type(sys)("tensorrt")  # TensorRT takes the GPU's compute capability as it is
vars(tensorrt).update(vars(tensorrt_rtx), __name__="tensorrt", __version__="11.4.0")
from pathlib import Path
from deploy.builder import BuildSettings, build_engine
build_engine(Path("half.onnx"), Path("half.plan"), BuildSettings(backend="tensorrt"))
record = json.loads(Path("half.plan.json").read_text())
print(json.dumps([record["compute_capability"], record["environment"]["gpu"]]))
"""


@pytest.mark.parametrize("name", ["two GPUs", "the second of two", "MIG", "N/A", "hidden", "no driver, but nvidia-smi"])
def test_a_build_records_the_gpu(on, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    pytest.importorskip("tensorrt_rtx", reason="engines are built for real, which needs tensorrt-rtx")
    monkeypatch.chdir(tmp_path)
    onnx.save(conv_net(), "half.onnx")
    machine = MACHINES[name]
    capability, gpu = on(machine, BUILD)
    if machine.found is None:
        assert (capability, gpu) == (None, None)
    else:
        assert (gpu["name"], gpu["compute_capability"], gpu["driver"]) == (*machine.found, machine.driver)
        assert capability == machine.found[1]


COMMANDS = """
from deploy.machine import check_machine
print(json.dumps({check.name: check.fix for check in check_machine()}))
"""


@pytest.mark.parametrize(
    ("cuda", "tensorrt", "bindings"),
    [
        ("13000", "pip install tensorrt", "pip install cuda-python"),
        (
            "12040",
            "pip install tensorrt-cu12 (the driver supports CUDA 12.4)",
            'pip install "cuda-python==12.*" (the driver supports CUDA 12.4)',
        ),
        (
            "11040",
            "pip install tensorrt-cu12 and update the driver to 525 or newer (the driver supports CUDA 11.4)",
            'pip install "cuda-python==12.*" and update the driver to 525 or newer (the driver supports CUDA 11.4)',
        ),
        (
            None,
            "pip install tensorrt (a driver before 580 needs pip install tensorrt-cu12)",
            'pip install cuda-python (a driver before 580 needs pip install "cuda-python==12.*")',
        ),
    ],
)
def test_packages_fit_the_driver(on, cuda: str | None, tensorrt: str, bindings: str) -> None:
    machine = Machine(None, has_driver=cuda is not None, environment={"FAKE_CUDA": cuda} if cuda else {})
    fixes = on(machine, COMMANDS)
    assert (fixes["tensorrt"], fixes["cuda"]) == (tensorrt, bindings)
    assert fixes["onnx"] == "pip install onnx"


PYCUDA = """
from types import ModuleType
import importlib.machinery, importlib.util
class NeedsDriver:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.startswith("pycuda"):
            return importlib.machinery.ModuleSpec(name, NeedsDriver, is_package=name == "pycuda")
    create_module = staticmethod(lambda spec: None)
    @staticmethod
    def exec_module(module):
        if module.__name__ == "pycuda.driver":
            import ctypes
            ctypes.CDLL("libcuda.so.1")
del sys.modules["pycuda"]
sys.meta_path.insert(0, NeedsDriver)
from deploy.machine import check_machine, connect
from sparsegpt_core.errors import SparseGPTError
try:
    connect()
except SparseGPTError as error:
    print(json.dumps([str(error), error.hint, {check.name: check.fix for check in check_machine()}["pycuda"]]))
"""


def test_pycuda_without_a_driver_asks_for_the_driver(on) -> None:
    """PyCUDA is linked to libcuda.so.1, so it cannot be imported in a container without ``--gpus``."""
    message, hint, fix = on(MACHINES["nothing"], PYCUDA)
    assert message.startswith("cannot import pycuda.driver: ")
    assert "libcuda.so.1" in message
    assert hint == fix == "Install NVIDIA's driver. In a container, use `docker run --gpus all`."


FIND_BY_NAME = """
from types import SimpleNamespace
sys.modules["tensorrt"] = SimpleNamespace(Builder=None, __version__="10.9.0")
import ctypes
ctypes.CDLL = lambda name: sys.exit("a name needs no GPU")
from deploy.machine import find_backend
print(json.dumps(find_backend("tensorrt").version))
"""


def test_a_backend_with_a_name_does_not_look_for_a_gpu(on) -> None:
    assert on(MACHINES["two GPUs"], FIND_BY_NAME) == "10.9.0"
