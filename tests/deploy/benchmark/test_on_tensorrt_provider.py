"""The comparison on ONNX Runtime's TensorRT provider. Without a GPU its sessions run on the CPU provider."""

from __future__ import annotations

import json
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from deploy.benchmark import EngineSettings, Limits, benchmark_tensorrt_provider
from deploy.benchmark.on_tensorrt_provider import provider_options
from deploy.builder import BuildSettings
from deploy.graph import OnnxFile
from deploy.machine import GPU, TENSORRT_PROVIDER, find_runtime
from deploy.measure import Regime
from deploy.sessions import OnnxSession
from sparsegpt_core.errors import InputError, MissingDependencyError, ModelError
from tests.support.engines import SHORT
from tests.support.graphs import NOTHING, model

CPU = "CPUExecutionProvider"
KNOWN_OPTIONS = {
    "trt_auxiliary_streams",
    "trt_bf16_enable",
    "trt_builder_optimization_level",
    "trt_cuda_graph_enable",
    "trt_engine_cache_enable",
    "trt_engine_cache_path",
    "trt_force_timing_cache",
    "trt_fp16_enable",
    "trt_int8_enable",
    "trt_max_workspace_size",
    "trt_profile_opt_shapes",
    "trt_sparsity_enable",
    "trt_tactic_sources",
    "trt_timing_cache_enable",
    "trt_timing_cache_path",
}
"""Some of the names in libonnxruntime_providers_tensorrt.so of onnxruntime-gpu 1.31.1."""
QUICK = EngineSettings(timing=SHORT, rebuilds=2, regime=Regime("gpu", transfers=False))


class Opened(list):
    """What sessions of the TensorRT provider were asked for, and those that are open."""

    sessions: weakref.WeakSet


def write(path: Path, weight: np.ndarray, fp16: bool = False) -> Path:
    proto = model(weight)
    if fp16:
        weights = onnx.numpy_helper.from_array(weight.astype(np.float16), "w")
        proto.graph.initializer[0].CopyFrom(weights)
        proto.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
        proto.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    onnx.save(proto, str(path))
    return path


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """The same dense and sparse classifier in FP16; the second obeys 2:4."""
    groups = NOTHING["w"].reshape(16, 4, 10)
    kept = np.abs(groups) >= np.sort(np.abs(groups), axis=1)[:, 2:3]
    sparse = (groups * kept).reshape(64, 10)
    return write(tmp_path / "dense.onnx", NOTHING["w"], True), write(tmp_path / "sparse.onnx", sparse, True)


@pytest.fixture
def batches() -> list:
    images = np.random.default_rng(1).standard_normal((10, 1, 8, 8)).astype(np.float32)
    return [(images[:6], np.zeros(6, int)), (images[6:], np.zeros(4, int))]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list:
    """What sessions of the TensorRT provider were asked for. They run on the CPU and say that TensorRT runs them."""
    asked = Opened()
    asked.sessions = weakref.WeakSet()

    class OnCPU(OnnxSession):
        def __init__(self, path, threads=None, provider=CPU, options=None, shapes=None):
            super().__init__(path, threads, CPU, options, shapes)
            if provider != CPU:
                assert Path(options["trt_timing_cache_path"]).is_dir()
                asked.sessions.add(self)
                asked.append((OnnxFile.of(path).path.name, provider, options, shapes and shapes["x"]))

        def nodes_by_provider(self):
            (nodes,) = (super().nodes_by_provider() or {CPU: ["m"]}).values()  # None before ONNX Runtime 1.24
            return {TENSORRT_PROVIDER: nodes}

    monkeypatch.setattr("deploy.benchmark.on_tensorrt_provider.OnnxSession", OnCPU)
    gpu = GPU("Fake A100", "580", "8.0", "13.0")
    monkeypatch.setattr("deploy.benchmark.on_tensorrt_provider.find_gpu", lambda: gpu)
    return asked


def test_arms_differ_by_weights_and_options(pair, batches, opened) -> None:
    stages = []
    result = benchmark_tensorrt_provider(*pair, batches, QUICK, lambda *step: stages.append(step))
    found = json.loads(json.dumps(result.to_json(), allow_nan=False))
    sparsity = [(name, options["trt_sparsity_enable"]) for name, _, options, _ in opened]
    assert sparsity == [("dense.onnx", "0"), ("sparse.onnx", "0"), ("sparse.onnx", "1")] * 2
    assert {provider for _, provider, _, _ in opened} == {TENSORRT_PROVIDER}
    assert {shape for *_, shape in opened} == {(8, 1, 8, 8)}
    caches = [options["trt_timing_cache_path"] for _, _, options, _ in opened]
    assert caches[0] == caches[1] == caches[2] != caches[3] == caches[4] == caches[5]
    assert not Path(caches[0]).exists()
    assert set(found["latency"]) == {"A", "B", "C"}
    assert len(found["latency"]["C"]["engines_p50_ms"]) == 2
    assert found["latency_regime"] == {
        "clock": "host",
        "transfers": False,
        "cuda_graph": False,
        "batch": 8,
        "streams": 1,
        "inferences": 1,
        "note": "ONNX Runtime is timed by the host's clock, on one stream and without CUDA graphs.",
    }
    assert found["latency_regime"]["note"] in found["warnings"]
    assert set(found["speedup"]) == {"A_to_C", "B_to_C"}
    assert found["accuracy"]["C"]["samples"] == 10
    assert found["accuracy"]["C"]["top1"] == found["accuracy"]["sparse"]["top1"]
    assert found["runtime"].endswith("TensorRT on Fake A100")
    assert "In ONNX Runtime's TensorRT provider: " in found["verdict"]
    assert "1 eligible layers use sparse kernels is unknown" in found["verdict"]
    assert list(dict.fromkeys(stage for stage, *_ in stages)) == ["engines", "latency", "accuracy"]
    (failure,) = Limits(min_speedup=1e6).speedup_failures(result.speedup["A_to_C"], result.runtime)
    assert failure.startswith("the speed-up is")


def test_each_file_is_read_once(pair, batches, opened, monkeypatch) -> None:
    calls, load = [], onnx.load
    monkeypatch.setattr("onnx.load", lambda path, **options: calls.append(path) or load(path, **options))
    benchmark_tensorrt_provider(*pair, batches, replace(QUICK, batches=(8, 2)))
    assert len(opened) == 12
    assert sorted(calls) == [str(path) for path in pair]


@pytest.mark.parametrize(("free", "together"), [(None, 2), (1 << 30, 2), (20_000, 1)])
def test_rebuilds_are_built_one_after_another_where_memory_is_short(
    pair, batches, opened, monkeypatch, free, together
) -> None:
    def free_memory() -> int:
        if free is None:
            raise MissingDependencyError("pycuda is not installed")
        return free

    monkeypatch.setattr("deploy.benchmark.on_tensorrt_provider.free_memory", free_memory)
    said, alive = [], []
    settings = replace(QUICK, batches=(8, 2))
    result = benchmark_tensorrt_provider(
        *pair, batches, settings, lambda stage, *_: alive.append(len(opened.sessions)), said.append
    )
    found = result.to_json()
    assert said[0].startswith("12 engines to build (3 arms, 2 rebuilds, 2 batches); estimated GPU memory")
    assert (found["cost"]["free_bytes"], found["cost"]["rebuilds_together"]) == (free, together)
    assert max(alive) == 3 * together
    assert len(found["latency"]["C"]["engines_p50_ms"]) == 2
    assert not opened.sessions


def test_batches_and_transfers(pair, batches, opened) -> None:
    settings = replace(QUICK, rebuilds=1, batches=(2, 3), regime=Regime("gpu", transfers=True, cuda_graph=True))
    result = benchmark_tensorrt_provider(*pair, batches, settings)
    assert [timed.latency.regime.batch for timed in result.timed] == [2, 3]
    assert result.timed[1].latency.regime.transfers
    assert [shape[0] for *_, shape in opened] == [2, 2, 2, 3, 3, 3]


def test_no_engine_is_built_from_fp32(tmp_path, batches, opened) -> None:
    path = write(tmp_path / "m.onnx", NOTHING["w"])
    with pytest.raises(InputError, match=r"m\.onnx is FP32, for which TensorRT has no sparse kernels"):
        benchmark_tensorrt_provider(path, path, batches, replace(QUICK, rebuilds=1))
    assert opened == []
    options = provider_options(OnnxFile(path).graph, True, tmp_path, BuildSettings())
    assert options["trt_fp16_enable"] == "0"  # TensorRT's own FP16 was never compared with PyTorch


def test_option_names_are_those_of_the_library(pair, tmp_path) -> None:
    graph = OnnxFile(pair[0]).graph
    build = BuildSettings(opt_level=4, workspace=1 << 30)
    everything = replace(graph, types=frozenset({"BFLOAT16"}), quantized=True)
    options = provider_options(everything, True, tmp_path, build)
    assert set(options) <= KNOWN_OPTIONS
    assert options["trt_builder_optimization_level"] == "4"
    assert options["trt_max_workspace_size"] == str(1 << 30)
    assert (options["trt_int8_enable"], options["trt_fp16_enable"], options["trt_bf16_enable"]) == ("1", "1", "1")
    assert "trt_bf16_enable" not in provider_options(graph, False, tmp_path, BuildSettings())


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (replace(QUICK, plans=Path("plans")), "no `plans`"),
        (replace(QUICK, regime=Regime("gpu", streams=2)), "no `streams`"),
        (replace(QUICK, build=BuildSettings(version_compatible=True, shapes=(1, 2, 3))), "no `shapes`, `version_comp"),
        (replace(QUICK, rebuilds=0), "0 times"),
    ],
)
def test_settings_without_an_option(pair, batches, opened, settings, named) -> None:
    with pytest.raises(InputError, match=named):
        benchmark_tensorrt_provider(*pair, batches, settings)
    assert opened == []


def test_nodes_that_tensorrt_leaves_to_others_are_named(pair, batches, opened, monkeypatch) -> None:
    provider = "deploy.benchmark.on_tensorrt_provider.OnnxSession.nodes_by_provider"
    monkeypatch.setattr(provider, lambda self: {TENSORRT_PROVIDER: ["a"], CPU: [*"bcdefg"]})
    warnings = benchmark_tensorrt_provider(*pair, batches, replace(QUICK, rebuilds=1)).warnings
    assert f"nodes of sparse.onnx outside TensorRT, on {CPU}: 6 (b, c, d, e, f, ...)" in warnings
    assert f"nodes of dense.onnx outside TensorRT, on {CPU}: 6 (b, c, d, e, f, ...)" in warnings
    monkeypatch.setattr(provider, lambda self: None)
    warnings = benchmark_tensorrt_provider(*pair, batches, replace(QUICK, rebuilds=1)).warnings
    assert any("does not say which nodes run outside TensorRT" in text for text in warnings)
    monkeypatch.setattr(provider, lambda self: {CPU: ["a"]})
    with pytest.raises(ModelError, match=r"TensorRT runs no node of dense\.onnx"):
        benchmark_tensorrt_provider(*pair, batches, QUICK)


def test_a_session_names_its_nodes_and_runs_on_its_device(pair) -> None:
    session = OnnxSession(pair[0], shapes={"x": (4, 1, 8, 8)})
    images = np.random.default_rng(2).standard_normal((4, 1, 8, 8))
    assert session.input_shapes == {"x": (4, 1, 8, 8)}
    session.bind(images)()
    assert session.run(images[:3]).shape == (3, 10)  # in one portion of 4
    found = session.nodes_by_provider()
    assert found is None or "m" in found[CPU]
    with pytest.raises(InputError, match=r"takes images of shape \(N, 1, 8, 8\)"):
        session.bind(np.zeros((4, 3, 8, 8)))


def test_shapes_that_the_graph_does_not_take(pair, tmp_path) -> None:
    with pytest.raises(InputError, match=r"takes images of shape \(4, 1, 8, 8\), not \(4, 1, 9, 9\)"):
        OnnxSession(pair[0], shapes={"x": (4, 1, 9, 9)})
    unnamed = model()
    unnamed.graph.input[0].type.tensor_type.shape.dim[0].ClearField("dim_param")
    onnx.save(unnamed, str(tmp_path / "unnamed.onnx"))
    with pytest.raises(InputError, match=r"\(None, 1, 8, 8\), not \(4, 1, 8, 8\)") as caught:
        OnnxSession(tmp_path / "unnamed.onnx", shapes={"x": (4, 1, 8, 8)})
    assert "named batch" in caught.value.hint


def test_the_runtime_is_refused_where_it_cannot_run(monkeypatch) -> None:
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: [CPU])
    with pytest.raises(InputError, match=f"no {TENSORRT_PROVIDER}, only {CPU}"):
        find_runtime("onnxruntime-tensorrt")
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: [TENSORRT_PROVIDER, CPU])
    monkeypatch.setattr("deploy.machine.runtime_choice.find_gpu", lambda: None)
    with pytest.raises(InputError, match="there is none"):
        find_runtime("onnxruntime-tensorrt")
    monkeypatch.setattr("deploy.machine.runtime_choice.find_gpu", lambda: GPU("A100", "580", "8.0", "13.0"))
    assert find_runtime("onnxruntime-tensorrt") == (None, f"{TENSORRT_PROVIDER} on A100, compute capability 8.0")
