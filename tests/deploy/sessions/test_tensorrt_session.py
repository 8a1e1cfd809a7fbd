"""TensorRT sessions and timers on stand-ins that record every call, and on a real GPU."""

from __future__ import annotations

import contextlib
import signal
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from onnxruntime import InferenceSession

import deploy.sessions.onnx_session
from deploy.machine import Backend, find_backend, find_gpu
from deploy.measure import (
    EngineTimer,
    Regime,
    TimingSettings,
    agree_on_regime,
    compare_layer_times,
    measure_latency,
    measure_layer_times,
)
from deploy.sessions import OnnxSession, TensorRTSession
from sparsegpt_core.errors import InputError, MissingDependencyError, ModelError
from sparsegpt_core.named_inputs import NamedInputs
from tests.support.fake_gpu import DataType, FakeContext, FakeEngine, FakeGPU, write_plan


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeGPU:
    fake = FakeGPU()
    for name, module in (
        ("pycuda.driver", fake.pycuda),
        ("cuda.bindings.driver", fake.driver),
    ):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(sys.modules, "pycuda", type(sys)("pycuda"))
    return fake


@pytest.fixture
def session(gpu: FakeGPU, tmp_path):
    with TensorRTSession(write_plan(tmp_path / "m.plan"), Backend("tensorrt", gpu.trt, "10.9.0")) as opened:
        yield opened


def images(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(-4, 4, (count, 1, 8, 8)).astype(np.float32)


def sums(values: np.ndarray) -> np.ndarray:
    return values.reshape(len(values), 4, 16).sum(axis=2)


@pytest.mark.parametrize("count", [1, 3, 8, 9, 21])
@pytest.mark.parametrize("batches", [(1, 4, 8), (2, 2, 2), (4, 8, 16)])
def test_any_number_of_images_runs_in_pieces(gpu: FakeGPU, tmp_path, count: int, batches: tuple) -> None:
    gpu.plan["batches"] = batches
    backend = Backend("tensorrt", gpu.trt, "10.9.0")
    with TensorRTSession(write_plan(tmp_path / "m.plan"), backend) as opened:
        assert (opened.name, opened.input_shapes) == ("m.plan", {"image": (None, 1, 8, 8)})
        assert opened.batches == batches
        logits = opened.run(images(count))
    np.testing.assert_array_equal(logits, sums(images(count)))
    assert logits.dtype == np.float32
    shapes = [call[2][0] for call in gpu.calls if call[0] == "set_input_shape"]
    assert all(batches[0] <= size <= batches[2] for size in shapes)
    assert gpu.names().count("execute") == -(-count // batches[2])


def test_several_inputs(gpu: FakeGPU, tmp_path) -> None:
    gpu.plan["inputs"] = 2
    first, second = images(5), -3 * images(5)
    with TensorRTSession(write_plan(tmp_path / "m.plan"), Backend("tensorrt", gpu.trt, "10.9.0")) as opened:
        logits = opened.run(NamedInputs({"image1": second, "image": first}))
        assert {call[1:] for call in gpu.calls if call[0] == "set_input_shape"} >= {
            ("image", (5, 1, 8, 8)),
            ("image1", (5, 1, 8, 8)),
        }
        times = measure_layer_times(opened, NamedInputs({"image": first, "image1": second}), iterations=3)
        with pytest.raises(InputError, match="takes the inputs image, image1, not images"):
            opened.run(first)
        with pytest.raises(InputError, match=r"takes image1 of shape \(N, 1, 8, 8\), not \(5, 1, 4, 4\)"):
            opened.run(NamedInputs({"image": first, "image1": second[:, :, :4, :4]}))
    np.testing.assert_array_equal(logits, sums(first) + sums(second))
    assert set(times) == {"conv", "fused"}
    assert gpu.memory == 1 << 30


def test_the_order_of_one_inference(gpu: FakeGPU, session: TensorRTSession) -> None:
    session.run(images(8))
    gpu.calls.clear()
    session.run(images(8))
    assert gpu.names() == ["htod", "execute", "dtoh", "synchronize"]
    assert {call[1] for call in gpu.calls} == {next(iter(gpu.streams))}
    first = session.run(images(3))
    session.run(-images(3))
    np.testing.assert_array_equal(first, sums(images(3)))  # a copy: the memory is used again


def test_streams_do_not_wait_for_the_default_stream(gpu: FakeGPU, session: TensorRTSession) -> None:
    session.run(images(1))
    assert [call for call in gpu.calls if call[0] == "Stream"] == [("Stream", 1)]


def test_only_run_needs_a_context_of_the_session(gpu: FakeGPU, session: TensorRTSession) -> None:
    with timer(session) as timed:
        timed(1)
        assert gpu.names().count("create_execution_context") == 1
    session.run(images(1))
    session.run(images(9))
    assert gpu.names().count("create_execution_context") == 2


@pytest.mark.parametrize("kind", [DataType.FLOAT, DataType.HALF])
def test_floating_types(gpu: FakeGPU, tmp_path, kind: DataType) -> None:
    gpu.plan.update(input=kind, output=kind)
    with TensorRTSession(write_plan(tmp_path / "m.plan"), Backend("tensorrt", gpu.trt, "10")) as opened:
        np.testing.assert_array_equal(opened.run(images(5).astype(np.float64)), sums(images(5)))
    name = "float16" if kind == DataType.HALF else "float32"
    assert {call[2] for call in gpu.calls if call[0] == "pagelocked_empty"} == {name}


def test_float_images_are_not_cast_to_integers(gpu: FakeGPU, tmp_path) -> None:
    gpu.plan.update(input=DataType.INT8, output=DataType.INT8)
    with TensorRTSession(write_plan(tmp_path / "m.plan"), Backend("tensorrt", gpu.trt, "10")) as opened:
        np.testing.assert_array_equal(opened.run(images(2).astype(np.int8)), sums(images(2)))
        for dtype in (np.float32, np.uint8, np.int64):
            with pytest.raises(InputError, match="takes images of type int8"):
                opened.run(images(2).astype(dtype))


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (2, 64), (0, 1, 8, 8)])
def test_wrong_images(session: TensorRTSession, shape: tuple) -> None:
    with pytest.raises(InputError, match=r"shape \(N, 1, 8, 8\)"):
        session.run(np.zeros(shape, np.float32))


def test_everything_is_freed_once(gpu: FakeGPU, tmp_path) -> None:
    before = gpu.memory
    opened = TensorRTSession(write_plan(tmp_path / "m.plan"), Backend("tensorrt", gpu.trt, "10"))
    opened.run(images(1))
    assert gpu.names().count("mem_alloc") == 2
    opened.close()
    opened.close()
    assert (gpu.names().count("free"), gpu.names().count("free_host")) == (2, 2)
    assert gpu.memory == before
    order = [gpu.names().index(name) for name in ("synchronize", "~context", "free")]
    assert order == sorted(order)


def test_the_stand_ins_have_only_what_is_real() -> None:
    gpu, driver = FakeGPU(), pytest.importorskip("cuda.bindings.driver", reason="compared with cuda-python")
    trt = pytest.importorskip("tensorrt_rtx", reason="compared with tensorrt-rtx")

    def public(thing: object) -> set[str]:
        return {name for name in dir(thing) if not name.startswith("_")}

    assert public(gpu.driver) <= public(driver)
    assert public(gpu.driver.CUresult) <= public(driver.CUresult) | set(driver.CUresult.__members__) | public(int)
    assert public(gpu.driver.CUstreamCaptureMode) <= set(driver.CUstreamCaptureMode.__members__)
    assert public(gpu.trt) <= public(trt)
    assert public(gpu.trt.Runtime) <= public(trt.Runtime)
    assert public(FakeEngine) <= public(trt.ICudaEngine)
    assert public(FakeContext) <= public(trt.IExecutionContext)
    assert set(DataType.__members__) <= set(trt.DataType.__members__)


def test_too_little_gpu_memory(gpu: FakeGPU, tmp_path) -> None:
    gpu.memory = before = 8 * 64 * 4 + 8  # enough for the images, not for the logits
    opened = TensorRTSession(write_plan(tmp_path / "m.plan"), Backend("tensorrt", gpu.trt, "10"))
    with opened, pytest.raises(InputError, match="memory is full") as caught:
        opened.run(images(1))
    assert "`shapes`" in caught.value.hint
    assert gpu.memory == before
    assert gpu.names().count("free_host") == 2


def test_plans_that_are_refused(gpu: FakeGPU, tmp_path) -> None:
    backend = Backend("tensorrt", gpu.trt, "10.9.0")
    plan = write_plan(tmp_path / "m.plan")
    plan.write_bytes(b"other code")
    with pytest.raises(InputError, match="is not the plan"):
        TensorRTSession(plan, backend)
    with pytest.raises(InputError, match="a plan of tensorrt-rtx"):
        TensorRTSession(write_plan(tmp_path / "m.plan", "tensorrt-rtx"), backend)
    with pytest.raises(ModelError, match="bad magic tag") as caught:
        TensorRTSession(write_plan(tmp_path / "m.plan", content=b"of another version"), backend)
    assert "10.9.0 built this one" in caught.value.hint
    for changes, words in (({"inputs": 0}, "no input"), ({"output": DataType.BF16}, "is BF16")):
        original = dict(gpu.plan)
        gpu.plan.update(changes)
        with pytest.raises(ModelError, match=words):
            TensorRTSession(write_plan(tmp_path / "m.plan"), backend)
        gpu.plan = original
    gpu.plan["rank"] = -1
    opened = TensorRTSession(write_plan(tmp_path / "m.plan"), backend)
    with opened, pytest.raises(InputError, match="depends on the data"):
        opened.run(images(1))
    assert gpu.memory == 1 << 30


@pytest.mark.parametrize("allowed", [False, True])
def test_only_version_compatible_plans_may_contain_host_code(gpu: FakeGPU, tmp_path, allowed: bool) -> None:
    plan = write_plan(tmp_path / "m.plan", version_compatible=allowed)
    TensorRTSession(plan, Backend("tensorrt", gpu.trt, "10")).close()
    assert ("deserialize", allowed) in gpu.calls


def test_an_engine_that_cannot_run_or_is_not_a_classifier(gpu: FakeGPU, session: TensorRTSession) -> None:
    gpu.refuses_to_run = True
    with pytest.raises(ModelError, match="not permitted"):
        session.run(images(1))
    gpu.refuses_to_run = False
    gpu.plan["rank"] = 3
    with pytest.raises(ModelError, match=r"returns \(2, 2, 2\)"):
        session.run(images(2))


def test_a_failing_gpu_is_named(gpu: FakeGPU, session: TensorRTSession, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise gpu.pycuda.LogicError("cuMemcpyHtoDAsync failed: an illegal memory access was encountered")

    with monkeypatch.context() as patch:
        patch.setattr(gpu.pycuda, "memcpy_htod_async", fail)
        with pytest.raises(InputError, match=r"running m\.plan: .*illegal memory access") as caught:
            session.run(images(1))
    assert "nvidia-smi" in caught.value.hint


def test_without_pycuda_or_gpu(tmp_path, monkeypatch: pytest.MonkeyPatch, gpu: FakeGPU) -> None:
    plan = write_plan(tmp_path / "m.plan")

    def fail() -> None:
        raise gpu.pycuda.LogicError("cuInit failed: no CUDA-capable device is detected")

    monkeypatch.setattr(gpu.pycuda, "init", fail)
    with pytest.raises(InputError, match="no usable GPU: cuInit failed: no CUDA-capable device"):
        TensorRTSession(plan)
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    with pytest.raises(MissingDependencyError) as caught:
        TensorRTSession(plan)
    assert caught.value.hint == "pip install pycuda"


def timer(session: TensorRTSession, count: int = 4, **regime: object) -> EngineTimer:
    return EngineTimer(session, images(count), Regime(**regime))


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("transfers", [False, True])
def test_gpu_events_enclose_the_work(gpu: FakeGPU, session: TensorRTSession, transfers: bool, graph: bool) -> None:
    with timer(session, clock="gpu", transfers=transfers, cuda_graph=graph) as timed:
        gpu.calls.clear()
        assert timed(2) == (1.0, 1.0)  # 0.25 ms an image
        work = ["htod", "execute", "dtoh"] if transfers else ["execute"]
        launch = ["cuGraphLaunch"] if graph else []
        inference = [*work, *launch]
        sample = [*inference, "record", *inference, *inference, "record", "event_synchronize"]
        assert gpu.names() == 2 * sample
        note = (
            "" if graph else "Without a CUDA graph the host launches every kernel, so a small engine runs at the host's"
        )
        assert timed.regime.note.startswith(note)
        assert replace(timed.regime, note="") == Regime("gpu", transfers, graph, batch=4, inferences=2)
        np.testing.assert_array_equal(session.run(images(2)), sums(images(2)))  # the session is not disturbed


@pytest.mark.parametrize(("inference_ms", "inferences"), [(4.0, 2), (0.5, 2), (0.4, 3), (0.3, 4), (0.0, 2000)])
def test_a_sample_lasts_a_millisecond(
    gpu: FakeGPU, session: TensorRTSession, monkeypatch: pytest.MonkeyPatch, inference_ms: float, inferences: int
) -> None:
    """The launch of a first inference takes 0.008 ms to reach an idle GPU, and is not measured."""
    monkeypatch.setattr("tests.support.fake_gpu.IMAGE_MS", inference_ms)
    gpu.idle_ms = 0.008
    with timer(session, 1, clock="gpu", transfers=False) as timed:
        assert timed.regime.inferences == inferences
        assert timed(3) == pytest.approx([inference_ms] * 3)
        assert timed.regime.to_json()["inferences"] == inferences


def test_the_host_waits_before_it_reads_its_clock(gpu: FakeGPU, session: TensorRTSession) -> None:
    with timer(session, streams=2, transfers=False) as timed:
        gpu.calls.clear()
        (sample,) = timed(1)
        assert sample > 0
        assert gpu.names() == ["execute", "execute", "synchronize", "synchronize"]
        assert len({call[1] for call in gpu.calls}) == 2
        assert timed.regime.images == 8


def test_events_fork_and_join_streams(gpu: FakeGPU, session: TensorRTSession) -> None:
    with timer(session, clock="gpu", transfers=False, streams=2) as timed:
        gpu.calls.clear()
        timed(1)
        one, two = sorted({call[1] for call in gpu.calls if call[0] == "execute"})
        assert gpu.calls[:-1] == [
            ("execute", one),
            ("record", one),
            ("wait_for_event", two),
            *[("execute", one), ("execute", two)] * 2,
            ("record", two),
            ("wait_for_event", one),
            ("record", one),
        ]


def test_a_graph_is_captured_after_a_first_run(gpu: FakeGPU, session: TensorRTSession) -> None:
    gpu.calls.clear()
    timed = timer(session, cuda_graph=True)
    names = gpu.names()
    assert names.index("execute") < names.index("cuStreamBeginCapture")
    between = names[names.index("execute") : names.index("cuStreamBeginCapture")]
    assert "synchronize" in between
    begin = names.index("cuStreamBeginCapture")
    assert names[begin:] == ["cuStreamBeginCapture", "cuStreamEndCapture", "cuGraphInstantiate", "cuGraphDestroy"]
    gpu.calls.clear()
    timed.close()
    timed.close()
    names = gpu.names()
    assert names.count("cuGraphExecDestroy") == 1
    assert names.index("cuGraphExecDestroy") < names.index("free")


@pytest.mark.parametrize("step", ["cuStreamBeginCapture", "execute", "cuStreamEndCapture", "cuGraphInstantiate"])
def test_uncaptured_work_is_timed_without_a_graph(gpu: FakeGPU, session: TensorRTSession, step: str) -> None:
    gpu.capture = step
    with timer(session, clock="gpu", cuda_graph=True) as timed:
        assert not timed.regime.cuda_graph
        reason = "not permitted" if step == "execute" else f"{step} fails: CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"
        assert reason in timed.regime.note
        assert timed(1) == (1.0,)


def test_without_cuda_python(gpu: FakeGPU, session: TensorRTSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", None)
    with timer(session, cuda_graph=True) as timed:
        assert "cannot import cuda.bindings.driver" in timed.regime.note
        with timer(session) as plain, pytest.raises(InputError, match=r"different timing regimes\. No CUDA graph"):
            measure_latency({"A": [plain], "B": [timed]})


def test_one_engine_without_a_graph_is_timed_with_others_without_graphs(gpu: FakeGPU, session: TensorRTSession) -> None:
    with timer(session, clock="gpu", cuda_graph=True) as captured:
        gpu.capture = "cuStreamEndCapture"
        with timer(session, clock="gpu", cuda_graph=True) as plain:
            captured.regime = replace(captured.regime, inferences=7)  # as if its engine were faster
            agree_on_regime([captured, plain])
            assert captured.regime == plain.regime
            assert (plain.regime.cuda_graph, plain.regime.inferences) == (False, 7)
            assert plain.regime.note.startswith("No CUDA graph of m.plan: cuStreamEndCapture fails")
            assert plain.regime.note.endswith("at the host's speed.")
            gpu.calls.clear()
            measure_latency({"A": [captured], "B": [plain]}, TimingSettings(0, 0))
            assert "cuGraphLaunch" not in gpu.names()


def test_timers_free_their_memory(gpu: FakeGPU, session: TensorRTSession) -> None:
    before = gpu.memory
    timer(session, streams=3).close()
    assert gpu.memory == before
    gpu.memory = 3000  # enough for one stream
    with pytest.raises(InputError, match="memory is full"):
        timer(session, streams=3)
    assert gpu.memory == 3000
    gpu.memory = before
    with pytest.raises(InputError, match="does not take the shape"):
        timer(session, count=9)
    assert gpu.memory == before


def test_three_arms_with_rebuilds(gpu: FakeGPU, session: TensorRTSession) -> None:
    """A takes twice as long as C, and one of C's two engines is slower than the other."""
    with (
        timer(session, 8, clock="gpu") as a,
        timer(session, 6, clock="gpu") as b,
        timer(session, 4, clock="gpu") as c,
        timer(session, 5, clock="gpu") as d,
    ):
        for each in (a, b, c, d):
            each.regime = a.regime  # as if they were engines of one batch
        report = measure_latency({"A": [a, a], "B": [b, b], "C": [c, d]}, TimingSettings(0.01, 0, rounds=6))
    assert report.speedup("A", "B").ratio == pytest.approx(8 / 6)
    found = report.to_json()
    assert found["regime"]["clock"] == "gpu"
    assert found["arms"]["C"]["engines_p50_ms"] == [1.0, 1.25]
    assert found["arms"]["C"]["spread"] == pytest.approx(0.25)
    assert found["arms"]["A"]["throughput"] == pytest.approx(4000)
    ratio = report.speedup("A", "C")
    assert ratio.ratio == pytest.approx(8 / 20**0.5)
    assert ratio.low < 8 / 5 < 8 / 4 < ratio.high  # two rebuilds say little


def test_layers_are_timed_after_warming_up(gpu: FakeGPU, session: TensorRTSession) -> None:
    before = gpu.memory
    gpu.calls.clear()
    assert measure_layer_times(session, images(2), iterations=3, warmup=2) == {"conv": [0.5] * 3, "fused": [0.375] * 3}
    assert gpu.names().count("execute") == 5
    assert gpu.memory == before


def test_an_interrupt_in_the_profiler_is_not_lost(gpu: FakeGPU, session: TensorRTSession, monkeypatch) -> None:
    """TensorRT drops what a callback raises."""
    run, done = FakeContext.execute_async_v3, []

    def interrupted(context: FakeContext, handle: int) -> bool:
        with contextlib.suppress(KeyboardInterrupt):
            done.append(run(context, handle))
            signal.raise_signal(signal.SIGINT)
        return True

    monkeypatch.setattr(FakeContext, "execute_async_v3", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            measure_layer_times(session, images(2), warmup=1)
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(done) == 1


def test_rtx_compiles_kernels_before_their_first_run(gpu: FakeGPU, tmp_path, monkeypatch) -> None:
    """With the enum of the real library, whose attributes and arguments have these names."""
    trt = pytest.importorskip("tensorrt_rtx")
    assert "runtime_config" in trt.ICudaEngine.create_execution_context.__doc__
    assert isinstance(trt.IRuntimeConfig.dynamic_shapes_kernel_specialization_strategy, property)
    config = SimpleNamespace()
    create, given = FakeEngine.create_execution_context, []

    def create_execution_context(engine: FakeEngine, runtime_config: object) -> FakeContext:
        given.append(runtime_config)
        return create(engine)

    monkeypatch.setattr(FakeEngine, "create_runtime_config", lambda engine: config, raising=False)
    monkeypatch.setattr(FakeEngine, "create_execution_context", create_execution_context)
    gpu.trt.DynamicShapesKernelSpecializationStrategy = strategies = trt.DynamicShapesKernelSpecializationStrategy
    plan = write_plan(tmp_path / "r.plan", "tensorrt-rtx")
    with TensorRTSession(plan, Backend("tensorrt-rtx", gpu.trt, "1.7.1")) as opened:
        np.testing.assert_array_equal(opened.run(images(2)), sums(images(2)))
    assert given == [config]
    assert config.dynamic_shapes_kernel_specialization_strategy == strategies.EAGER


@pytest.mark.parametrize("capturable", [True, False])
def test_rtx_is_asked_whether_it_can_be_captured(gpu: FakeGPU, session, monkeypatch, capturable: bool) -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    assert hasattr(trt.IExecutionContext, "is_stream_capturable")
    asked = []
    monkeypatch.setattr(
        FakeContext, "is_stream_capturable", lambda _, stream: asked.append(stream) or capturable, raising=False
    )
    with timer(session, cuda_graph=True) as timed:
        assert timed.regime.cuda_graph is capturable
        assert ("cannot capture m.plan" in timed.regime.note) is not capturable
    assert asked == [max(gpu.streams)]
    assert ("cuStreamBeginCapture" in gpu.names()) is capturable


def test_layers_are_compared_in_turns(session: TensorRTSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """B and C are equal, and the clock falls by 1 % from pass to pass."""
    asked, stages = [], []

    def measure(session: object, images: object) -> dict[str, list[float]]:
        asked.append(session)
        return {"conv": [1.01 ** len(asked)] * 3, "nothing": [0.0] * 3}

    monkeypatch.setattr("deploy.measure.layer_times.measure_layer_times", measure)
    found = compare_layer_times({"B": "b", "C": "c"}, images(2), lambda *step: stages.append(step))
    assert "".join(asked) == "bccbbccb"
    assert found["B"].medians_ms["conv"] / found["C"].medians_ms["conv"] == pytest.approx(1, abs=1e-3)
    assert found["B"].noise["conv"] == pytest.approx(0.07, rel=0.05)
    assert found["B"].noise["nothing"] == 0
    assert stages == [("layers", done, 8) for done in range(9)]


def test_layers_of_an_engine_do_not_change_from_pass_to_pass(gpu: FakeGPU, session: TensorRTSession) -> None:
    before = gpu.memory
    found = compare_layer_times({"B": session, "C": session}, images(2))
    assert found["C"].medians_ms == {"conv": 0.5, "fused": 0.375}
    assert found["C"].noise == {"conv": 0, "fused": 0}
    assert gpu.memory == before


class FallsBack:
    """ONNX Runtime with a provider that it has but cannot start."""

    def __init__(self, path: str, options: object, providers: list[tuple[str, dict]], **settings: object) -> None:
        assert not settings["enable_fallback"]
        self.session = InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def get_providers(self) -> list[str]:
        return self.session.get_providers()


def test_onnx_runtime_never_uses_the_cpu_without_an_error(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnx
    from onnx import helper

    tensors = [helper.make_tensor_value_info(name, 1, ["N", 4]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", tensors[:1], tensors[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(tmp_path / "m.onnx"))
    runtime = deploy.sessions.onnx_session.require("onnxruntime")
    monkeypatch.setattr(runtime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(runtime, "InferenceSession", FallsBack)
    with pytest.raises(InputError, match="on the CPU") as caught:
        OnnxSession(tmp_path / "m.onnx", provider="CUDAExecutionProvider")
    assert "nvidia-smi" in caught.value.hint


@pytest.mark.gpu
@pytest.mark.skipif(find_gpu() is None, reason="there is no GPU")
def test_on_a_real_gpu(tmp_path) -> None:
    """The engine's logits are ONNX Runtime's; every regime gives times, and graphs are captured."""
    import onnx

    from deploy.builder import BuildSettings, build_engine
    from tests.support.engines import conv_net

    pytest.importorskip("pycuda.driver", reason="engines run through PyCUDA")
    backend = find_backend()
    onnx.save(conv_net(), str(tmp_path / "m.onnx"))
    build_engine(tmp_path / "m.onnx", tmp_path / "m.plan", BuildSettings(backend=backend.name, shapes=(1, 4, 8)))
    inputs = np.random.default_rng(0).normal(size=(11, 3, 8, 8)).astype(np.float32)
    with TensorRTSession(tmp_path / "m.plan") as opened:
        np.testing.assert_allclose(opened.run(inputs), OnnxSession(tmp_path / "m.onnx").run(inputs), atol=0.05)
        for clock in ("gpu", "host"):
            for graph in (False, True):
                regime = Regime(clock, transfers=True, cuda_graph=graph, streams=2)
                with EngineTimer(opened, inputs[:4], regime) as timed:
                    assert all(sample > 0 for sample in timed(5))
                    assert timed.regime.cuda_graph == graph, timed.regime.note
        assert all(len(times) == 20 for times in measure_layer_times(opened, inputs[:4]).values())
