"""Helpers that several test files share."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from deploy.benchmark import EngineSettings
from deploy.machine import GPU, Backend
from deploy.measure import TimingSettings
from tests.support.fake_arms import Builder, Engine, classifier
from tests.support.fake_gpu import FakeGPU


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path) -> FakeGPU:
    fake = FakeGPU()
    for name, module in (
        ("pycuda", ModuleType("pycuda")),
        ("pycuda.driver", fake.pycuda),
        ("cuda.bindings.driver", fake.driver),
    ):
        monkeypatch.setitem(sys.modules, name, module)
    serve_engines(fake, monkeypatch)
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    return fake


def serve_engines(fake: FakeGPU, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the stand-in's module the TensorRT of deploy. Its plans are named after the arms."""
    fake.trt.LayerInformationFormat = SimpleNamespace(JSON=1)

    def deserialize(runtime, plan):
        fake.record_call("deserialize")
        return Engine(fake, runtime.logger, plan.decode()[-1])

    fake.trt.Runtime.deserialize_cuda_engine = deserialize
    backend, found = Backend("tensorrt", fake.trt, "10.9.0"), GPU("Fake A100", "580", "8.0", "13.0")
    for module in ("benchmark.arms", "builder.engine_build", "sessions.engine", "machine.runtime_choice"):
        monkeypatch.setattr(f"deploy.{module}.find_backend", lambda name="auto": backend)
    for module in ("builder.engine_build", "explain.from_plans", "machine.runtime_choice", "machine.environment"):
        monkeypatch.setattr(f"deploy.{module}.find_gpu", lambda: found)


@pytest.fixture
def builder(gpu: FakeGPU, monkeypatch: pytest.MonkeyPatch) -> Builder:
    made = Builder(gpu)
    monkeypatch.setattr("deploy.builder.engine_build.compile_engine", made)
    return made


@pytest.fixture
def pair(tmp_path) -> tuple[Path, Path]:
    """The model that the fake engines compute, and a copy with every second weight 0."""
    weight = np.repeat(np.eye(4), 16, axis=1)
    return (
        classifier(tmp_path / "dense.onnx", weight),
        classifier(tmp_path / "sparse.onnx", weight * (np.arange(64) % 2)),
    )


def images(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 9, (count, 1, 8, 8)).astype(np.float32)


def batches(count: int = 50, size: int = 20) -> list:
    values = images(count)
    labels = values.reshape(count, 4, 16).sum(axis=2).argmax(axis=1)
    return [(values[start : start + size], labels[start : start + size]) for start in range(0, count, size)]


SHORT = TimingSettings(duration_s=0, warmup_s=0, rounds=2)
QUICK = EngineSettings(timing=SHORT)


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A GPU whose SM clock falls from 1500 to 1200 MHz, limited by power and by the user."""
    module = ModuleType("pynvml")
    module.calls, clocks = [], [1500, 1500, 1200]

    def recorded(name, give):
        def call(*arguments):
            module.calls.append((name, *arguments))
            return give(*arguments)

        setattr(module, name, call)

    module.NVML_CLOCK_SM, module.NVML_CLOCK_MEM, module.NVML_TEMPERATURE_GPU = 1, 2, 0
    recorded("nvmlInit", lambda: None)
    recorded("nvmlShutdown", lambda: None)
    recorded("nvmlDeviceGetHandleByIndex", lambda index: "device")
    recorded("nvmlDeviceGetHandleByPciBusId", lambda bus: "device")
    recorded("nvmlDeviceGetName", lambda device: b"NVIDIA A100")
    recorded("nvmlDeviceGetCudaComputeCapability", lambda device: (8, 0))
    recorded("nvmlSystemGetDriverVersion", lambda: "550.54")
    recorded("nvmlDeviceGetMaxClockInfo", lambda device, kind: {1: 1980, 2: 1593}[kind])
    recorded("nvmlDeviceGetClockInfo", lambda device, kind: (clocks.pop(0) if clocks else 1200) if kind == 1 else 1593)
    recorded("nvmlDeviceGetPowerUsage", lambda device: 250500)
    recorded("nvmlDeviceGetTemperature", lambda device, sensor: 61)
    recorded("nvmlDeviceGetCurrentClocksEventReasons", lambda device: 0x4 | 0x2 | 0x1)
    monkeypatch.setitem(sys.modules, "pynvml", module)
    return module


def conv_net(dtype=np.float16, image: tuple = ("N", 3, 8, 8), op: str = "Relu") -> onnx.ModelProto:
    """Two convolutions, the second 2:4, and a classifier that is 2:4 too."""
    rng = np.random.default_rng(0)
    stem, body, head = (rng.normal(size=shape).astype(dtype) for shape in ((16, 3, 3, 3), (16, 16, 3, 3), (10, 16)))
    body[:, ::2] = 0
    head[:, 1::2] = 0
    nodes = [
        helper.make_node("Conv", ["input", "stem"], ["a"], pads=[1] * 4),
        helper.make_node(op, ["a"], ["b"]),
        helper.make_node("Conv", ["b", "body"], ["c"], pads=[1] * 4),
        helper.make_node("GlobalAveragePool", ["c"], ["d"]),
        helper.make_node("Flatten", ["d"], ["e"]),
        helper.make_node("Gemm", ["e", "head"], ["logits"], transB=1),
    ]
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("input", kind, image)],
        [helper.make_tensor_value_info("logits", kind, [image[0], 10])],
        [numpy_helper.from_array(w, n) for w, n in ((stem, "stem"), (body, "body"), (head, "head"))],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
