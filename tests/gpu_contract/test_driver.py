"""Sessions, streams, graphs and timers on real PyCUDA and cuda-python, which run on a stand-in driver.

The driver fixture also checks that each test frees its memory, streams, events and graphs, and ends its captures.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deploy.benchmark import benchmark_engines
from deploy.machine import GPU, Backend, connect, find_gpu, pci_bus_id, run_interruptibly
from deploy.measure import EngineTimer, Regime, measure_layer_times
from deploy.sessions import TensorRTSession
from sparsegpt_core.errors import InputError, ModelError
from tests.support.engines import QUICK, batches, serve_engines
from tests.support.fake_arms import Builder, classifier
from tests.support.fake_gpu import DataType, FakeContext, write_plan
from tests.support.paths import ROOT
from tests.support.standin import Driver, DriverGPU, environment


@pytest.fixture
def gpu(driver: Driver) -> DriverGPU:
    return DriverGPU(driver)


@pytest.fixture
def open_session(gpu: DriverGPU, tmp_path: Path):
    plan = write_plan(tmp_path / "m.plan")
    return lambda: TensorRTSession(plan, Backend("tensorrt", gpu.trt, "10.9.0"))


def images(count: int, dtype=np.float32) -> np.ndarray:
    return np.random.default_rng(0).integers(-4, 4, (count, 1, 8, 8)).astype(dtype)


def sums(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32).reshape(len(values), 4, 16).sum(axis=2)


@pytest.mark.parametrize("count", [1, 8, 21])
@pytest.mark.parametrize(
    ("kind", "dtype"), [(DataType.FLOAT, np.float32), (DataType.HALF, np.float32), (DataType.INT8, np.int8)]
)
def test_a_session_gives_the_engines_logits(driver, gpu, open_session, count: int, kind: DataType, dtype) -> None:
    gpu.plan["input"] = kind
    with open_session() as session:
        np.testing.assert_array_equal(session.run(images(count, dtype)), sums(images(count)))
        first = session.run(images(count, dtype))
        session.run(-images(count, dtype))
        np.testing.assert_array_equal(first, sums(images(count)))
    assert driver["pageable_copies"] == 0
    assert driver["stream_flags"] == 1  # CU_STREAM_NON_BLOCKING


@pytest.mark.parametrize("streams", [1, 2, 4])
@pytest.mark.parametrize("clock", ["gpu", "host"])
@pytest.mark.parametrize("transfers", [True, False])
@pytest.mark.parametrize("cuda_graph", [True, False])
def test_timers(driver, open_session, streams: int, clock: str, transfers: bool, cuda_graph: bool) -> None:
    launches = driver["launches"]
    with open_session() as session:
        asked = Regime(clock, transfers, cuda_graph, batch=3, streams=streams)
        with EngineTimer(session, images(3), asked) as timer:
            assert timer.regime == replace(asked, inferences=timer.regime.inferences, note=timer.regime.note)
            assert (timer.regime.inferences >= 2) == (clock == "gpu")
            assert bool(timer.regime.note) == (clock == "gpu" and not cuda_graph)
            samples = timer(5)
            timer.close()
            timer.close()
    assert len(samples) == 5
    assert all(0 < sample < 1000 for sample in samples)
    if cuda_graph:
        assert driver["nodes"] == (3 if transfers else 1)
        assert driver["launches"] - launches >= 5 * streams
    else:
        assert driver["launches"] == launches
    assert driver["pageable_copies"] == 0


def test_a_captured_graph_does_the_work(gpu, open_session) -> None:
    with open_session() as session:
        stream = session.new_stream()
        stream.resize({"image": (3, 1, 8, 8)})

        def work() -> None:
            stream.upload()
            stream.execute()
            stream.download()

        graph = stream.capture(work)
        for values in (images(3), -images(3)):
            stream.fill({"image": values})
            graph.launch()
            stream.synchronize()
            np.testing.assert_array_equal(stream.outputs()["logits"], sums(values))
        graph.close()
        stream.close()


def test_layer_times(open_session) -> None:
    with open_session() as session:
        times = measure_layer_times(session, images(2), iterations=3, warmup=2)
    assert times == {"conv": [0.5] * 3, "fused": [0.375] * 3}


@pytest.mark.parametrize("memory", ["free_bytes", "free_host_bytes"])
def test_full_memory(driver, open_session, memory: str) -> None:
    with open_session() as session:
        driver[memory] = 8 * 64 * 4 + 64  # enough for the images, not for the logits too
        with pytest.raises(InputError, match=r"memory is full while allocating tensors: .* out of memory") as caught:
            session.run(images(8))
        assert "fewer `streams`" in caught.value.hint
        with pytest.raises(InputError, match="memory is full"):
            EngineTimer(session, images(2), Regime("gpu", streams=2))


@pytest.mark.parametrize("fails_at", range(1, 9))
def test_an_interrupt_at_any_inference_frees_everything(gpu, open_session, monkeypatch, fails_at: int) -> None:
    """Inferences 1 to 4 are those of two graphs: 2 and 4 are captured. The session runs the others."""
    runs, execute = [], FakeContext.execute_async_v3

    def interrupted(context, handle):
        runs.append(handle)
        if len(runs) == fails_at:
            raise KeyboardInterrupt
        return execute(context, handle)

    monkeypatch.setattr(FakeContext, "execute_async_v3", interrupted)

    def time_and_run(session: TensorRTSession) -> None:
        with EngineTimer(session, images(2), Regime("gpu", cuda_graph=True, streams=2)):
            session.run(images(8 * 4))

    with open_session() as session, pytest.raises(KeyboardInterrupt):
        time_and_run(session)


@pytest.mark.parametrize(
    "function", ["cuStreamBeginCapture_v2", "cuStreamEndCapture", "cuGraphInstantiateWithFlags", "execute"]
)
def test_a_failed_capture_ends_and_falls_back(driver, gpu, open_session, function: str) -> None:
    gpu.capture = function  # the engine itself fails at execute
    driver.fail(function)
    with open_session() as session, EngineTimer(session, images(2), Regime("gpu", cuda_graph=True)) as timer:
        assert not timer.regime.cuda_graph
        assert timer.regime.note.startswith("No CUDA graph of m.plan: ")
        assert driver["captures"] == 0
        assert len(timer(3)) == 3


def test_waiting_inside_a_capture_ends_it(driver, open_session) -> None:
    with open_session() as session:
        stream = session.new_stream()
        calls = []

        def work() -> None:
            stream.execute()
            calls.append(1)
            if len(calls) == 2:  # the first call is not captured
                stream.synchronize()

        with pytest.raises(InputError, match="the GPU fails while running"):
            stream.capture(work)
        assert driver["captures"] == 0
        stream.execute()
        stream.synchronize()
        stream.close()


@pytest.mark.parametrize("function", ["cuStreamSynchronize", "cuMemcpyHtoDAsync_v2", "cuMemcpyDtoHAsync_v2"])
def test_an_error_of_the_driver_frees_everything(driver, open_session, function: str) -> None:
    with open_session() as session:
        session.run(images(1))
        driver.fail(function)
        with pytest.raises(InputError, match=r"the GPU fails while running m\.plan"):
            session.run(images(1))
        driver.fail("")
        np.testing.assert_array_equal(session.run(images(2)), sums(images(2)))


def test_an_engine_that_cannot_run(gpu, open_session) -> None:
    with open_session() as session:
        gpu.refuses_to_run = True
        with pytest.raises(ModelError, match="operation not permitted"):
            session.run(images(1))


def test_the_gpu_is_described(driver, monkeypatch) -> None:
    monkeypatch.setattr("deploy.machine.gpu._driver_version", lambda: None)  # no nvidia-smi
    assert find_gpu() == GPU("Stand-in GPU", None, "8.0", "13.0")
    assert pci_bus_id() == "0000:65:00.0"
    assert connect() is connect()


@pytest.mark.parametrize(("free_bytes", "together"), [(1 << 20, 3), (1 << 14, 1), (1 << 12, 0)])
def test_a_whole_benchmark(driver, gpu, tmp_path, monkeypatch, free_bytes: int, together: int) -> None:
    """With memory for all engines, for those of one rebuild, and for one engine. Times are the stand-in's."""
    weight = np.repeat(np.eye(4), 16, axis=1)
    pair = [classifier(tmp_path / f"{name}.onnx", weight) for name in ("dense", "sparse")]
    serve_engines(gpu, monkeypatch)
    monkeypatch.setattr("deploy.builder.engine_build.compile_engine", Builder(gpu))
    driver["free_bytes"] = free_bytes
    if not together:
        with pytest.raises(InputError, match="memory is full while allocating tensors"):
            benchmark_engines(*pair, batches(), QUICK)
        return
    result = benchmark_engines(*pair, batches(), QUICK)
    assert {name: arm.top1 for name, arm in result.accuracy.arms.items()} == dict.fromkeys(
        ("dense", "sparse", "A", "B", "C"), 100
    )
    assert result.timed[0].latency.regime.cuda_graph
    cost = result.cost.to_json()
    assert (cost["free_bytes"], cost["rebuilds_together"]) == (free_bytes, together)
    assert [len(group) for group in result.engines.values()] == [3, 3, 3]


def test_a_thread_of_run_interruptibly_has_the_context(driver) -> None:
    cuda = connect()
    assert run_interruptibly(lambda: cuda.Context.get_device().name(), lambda: None) == "Stand-in GPU"


CHILD = """
import sys
import numpy as np
from deploy.machine import Buffer, connect
cuda = connect()
if sys.argv[1] == "open":
    left = Buffer(cuda, (4, 4), np.float32)
"""


@pytest.mark.parametrize("leaves", ["nothing", "open"])
def test_a_process_ends_without_a_word(loaded_driver, tmp_path, leaves: str) -> None:
    """Also one that ends with memory in use."""
    report = tmp_path / "report.json"
    variables = {"LD_PRELOAD": str(loaded_driver.path), "STANDIN_REPORT": str(report), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error", "-c", CHILD, leaves]
    done = subprocess.run(command, env=environment(**variables), capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    counts = json.loads(report.read_text())
    assert counts["allocations"] == counts["frees"]
    assert counts["contexts"] == 0
