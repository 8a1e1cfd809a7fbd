"""The three arms on stand-ins for TensorRT and PyCUDA, through the library and the commands, and on a real GPU."""

from __future__ import annotations

import importlib
import json
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import onnx
import pytest

from deploy.benchmark import EngineSettings, Limits, benchmark_engines
from deploy.benchmark.arms import build_arms
from deploy.builder import BuildSettings, load_plan
from deploy.builder.compiler import Compiled
from deploy.graph import OnnxFile
from deploy.machine import Backend, find_gpu, find_runtime
from deploy.measure import QUICK_TIMING, Regime, compare_accuracy
from deploy.predict import read_profile
from deploy.sessions import OnnxSession
from sparsegpt_core.errors import DataError, InputError, MissingDependencyError, ModelError
from sparsegpt_core.named_inputs import NamedInputs
from tests.support.engines import QUICK, SHORT, batches
from tests.support.fake_arms import KERNELS, Builder, classifier
from tests.support.fake_gpu import FakeGPU


def test_arms_are_built_in_turn_with_their_own_weights_and_flags(builder: Builder, pair, tmp_path) -> None:
    result = benchmark_engines(*pair, batches(), EngineSettings(timing=SHORT, rebuilds=2, plans=tmp_path / "plans"))
    assert [asked[:2] for asked in builder.asked] == 2 * [
        ("dense.onnx", False),
        ("sparse.onnx", False),
        ("sparse.onnx", True),
    ]
    caches = [asked[2] for asked in builder.asked]
    assert len(set(caches[:3])) == len(set(caches[3:])) == 1  # the arms of one rebuild share a cache
    assert caches[0] != caches[3]  # the next rebuild times its tactics again
    assert all(asked[3] == {"image": ((8, 1, 8, 8),) * 3} for asked in builder.asked)
    assert {path.name for path in (tmp_path / "plans").iterdir()} == {
        f"{arm}{number}.plan{end}" for arm in "ABC" for number in (1, 2) for end in ("", ".json")
    }
    assert not list((tmp_path / "scratch").iterdir())
    assert [len(arm.engines) for arm in result.timed[0].latency.arms.values()] == [2, 2, 2]


def test_engines_of_networks_with_several_inputs(gpu: FakeGPU, builder: Builder, pair, cli) -> None:
    gpu.plan["inputs"] = 2
    for path in pair:
        model = onnx.load(path)
        model.graph.input.add().CopyFrom(model.graph.input[0])
        model.graph.input[1].name = "image1"
        model.graph.node.insert(0, onnx.helper.make_node("Add", ["image", "image1"], ["both"]))
        model.graph.node[1].input[0] = "both"
        onnx.save(model, path)
    inputs = [(NamedInputs({"image1": 2 * images, "image": -images}), labels) for images, labels in batches()]
    result = benchmark_engines(*pair, inputs, EngineSettings(timing=SHORT, rebuilds=1, batches=(8, 3)))
    shapes = [dict.fromkeys(("image", "image1"), ((size, 1, 8, 8),) * 3) for size in (8, 3)]
    assert [asked[3] for asked in builder.asked] == [shapes[0]] * 3 + [shapes[1]] * 3
    accuracy = result.compared.accuracy.arms
    assert accuracy["dense"].top1 == accuracy["A"].top1 == accuracy["C"].top1 == 100  # labels are of 2x - x
    assert accuracy["sparse"].top1 < 100
    assert [each.latency.regime.batch for each in result.timed] == [8, 3]
    wanted = BuildSettings(shapes=(1, 4, 8))
    result = benchmark_engines(*pair, inputs, EngineSettings(timing=SHORT, rebuilds=1, build=wanted))
    assert result.timed[0].latency.regime.batch == 4
    named = {"image": ((4, 1, 8, 8),) * 3, "image1": ((5, 1, 8, 8),) * 3}
    with pytest.raises(InputError, match=r"image1 of shape \(4, 1, 8, 8\) are not the opt shape \(5, 1, 8, 8\)"):
        benchmark_engines(*pair, inputs, EngineSettings(timing=SHORT, build=BuildSettings(shapes=named)))
    outcome = cli("predict", pair[0], *AT_ONCE, "--measure", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json["shapes"] == {"image": [8, 1, 8, 8], "image1": [8, 1, 8, 8]}


def test_the_result_of_a_benchmark(gpu: FakeGPU, builder: Builder, pair, monkeypatch: pytest.MonkeyPatch) -> None:
    report = {"sm_mhz": {"low": 1410.0}, "throttled": {"sw_power_cap": 0.5, "applications_clocks_setting": 1.0}}

    class Monitor:
        def __init__(self, bus: str) -> None:
            assert bus == "0000:65:00.0"
            self.report = report

        def __enter__(self):
            return self

        def __exit__(self, *_):
            gpu.record_call("monitor ends")

    monkeypatch.setattr("deploy.benchmark.measure_arms.GPUMonitor", Monitor)
    before, stages = gpu.memory, []
    result = benchmark_engines(*pair, batches(), QUICK, lambda *step: stages.append(step))
    assert gpu.memory == before
    found = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert found["runtime"] == "tensorrt 10.9.0 on Fake A100"
    assert found["speedup"].keys() == {"A_to_C", "B_to_C"}
    assert found["speedup"]["A_to_C"]["ratio"] == found["speedup"]["B_to_C"]["ratio"] == pytest.approx(2)
    assert found["latency"].keys() == {"A", "B", "C"}
    assert [found["latency"][arm]["p50_ms"] for arm in "ABC"] == [4.0, 4.0, 2.0]
    assert found["latency_batch"] == 8
    assert found["latency_regime"] == {
        **{"clock": "gpu", "transfers": False, "cuda_graph": True, "batch": 8, "streams": 1},
        **{"inferences": 2, "note": ""},
    }
    expected = compare_accuracy(
        {name: OnnxSession(path).run for name, path in zip(("dense", "sparse"), pair, strict=True)}, batches()
    )
    assert found["accuracy"].keys() == {"dense", "sparse", "A", "B", "C", "difference"}
    assert found["accuracy"]["dense"]["top1"] == found["accuracy"]["C"]["top1"] == 100
    assert found["accuracy"]["sparse"]["top1"] == expected.arms["sparse"].top1 < 100
    assert found["accuracy"]["difference"] == found["accuracy"]["C"]["difference"]
    assert found["accuracy"]["difference"]["value"] == 0
    assert found["layer_times"] == {"B": {"conv": 0.5, "fused": 0.375}, "C": {"conv": 0.5, "fused": 0.375}}
    assert found["layer_noise"]["B"] == {"conv": 0, "fused": 0}
    (layer,) = found["explanation"]["layers"]
    assert (layer["chosen"], layer["tactic"], layer["time_b_ms"]) == (True, KERNELS["C"], 0.5)
    assert layer["reason"] == "CHOSEN_NO_GAIN"
    assert found["explanation"]["builder"]["chosen"] == 1
    assert "2.00× (2.00–2.00) faster at batch 8; 1 of 1 eligible layers" in found["verdict"]
    assert "100.00 % dense, 100.00 % sparse" in found["verdict"]
    assert found["gpu"] == report
    assert found["warnings"] == ["the GPU's clocks were held back: sw_power_cap"]
    assert [engine["plan"] for engine in found["engines"]["C"]] == [None] * 3
    assert [engine["chosen_layers"] for engine in found["engines"]["C"]] == [1] * 3
    assert found["models"].keys() == {"dense", "sparse"}
    assert list(dict.fromkeys(stage for stage, _, _ in stages)) == ["engines", "latency", "layers", "accuracy"]
    assert ("engines", 9, 9) in stages
    assert Limits({"top1": 0}).quality_failures(result.compared.to_json(), result.judged) == []
    assert Limits(min_speedup=1.9).speedup_failures(result.speedup["A_to_C"], result.runtime) == []
    (failure,) = Limits(min_speedup=2.1).speedup_failures(result.speedup["A_to_C"], result.runtime)
    assert failure == "the speed-up is 2.00, 2.1 is required"


def test_the_regime_is_the_one_asked_for(gpu: FakeGPU, builder: Builder, pair) -> None:
    regime = Regime("host", transfers=True, cuda_graph=False, streams=2)
    result = benchmark_engines(*pair, batches(), EngineSettings(regime=regime, batches=(4,), timing=SHORT))
    assert result.to_json()["latency_regime"] == {**vars(regime), "batch": 4}
    assert "cuGraphLaunch" not in gpu.names()
    gpu.capture = "cuStreamEndCapture"
    result = benchmark_engines(*pair, batches(), QUICK)
    assert any("No CUDA graph" in text for text in result.warnings)


def test_the_opt_shape_is_timed(builder: Builder, pair) -> None:
    for shapes in ((1, 6, 16), {"image": ((1, 1, 8, 8), (6, 1, 8, 8), (16, 1, 8, 8))}):
        settings = EngineSettings(build=BuildSettings(shapes=shapes), timing=SHORT, rebuilds=1)
        assert benchmark_engines(*pair, batches(), settings).timed[0].latency.regime.batch == 6
        assert builder.asked[-1][3] == {"image": ((1, 1, 8, 8), (6, 1, 8, 8), (16, 1, 8, 8))}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (EngineSettings(build=BuildSettings(shapes=(1, 6, 16)), batches=(4,)), "are not the opt shape"),
        (EngineSettings(build=BuildSettings(shapes={"input": ((1, 1), (1, 1), (1, 1))})), "no input 'input'"),
        (EngineSettings(build=BuildSettings(shapes=(1, 6, 16)), batches=(6, 8)), "at one batch"),
        (EngineSettings(rebuilds=0), "0 times"),
    ],
)
def test_settings_and_images_are_checked_before_any_build(builder: Builder, pair, settings, message) -> None:
    with pytest.raises(InputError, match=message):
        benchmark_engines(*pair, batches(), settings)
    with pytest.raises(InputError, match=r"shape \(N, 1, 8, 8\)"):
        benchmark_engines(*pair, [(np.zeros((2, 3, 8, 8), np.float32), None)])
    with pytest.raises(DataError, match="no images"):
        benchmark_engines(*pair, [])
    assert builder.asked == []


def test_each_batch_gets_its_own_engines(builder: Builder, pair, tmp_path) -> None:
    settings = EngineSettings(batches=(8, 2), timing=SHORT, rebuilds=1, plans=tmp_path / "plans")
    found = benchmark_engines(*pair, batches(), settings).to_json()
    assert [asked[3]["image"][1][0] for asked in builder.asked] == [8, 8, 8, 2, 2, 2]
    (further,) = found["further_batches"]
    assert (found["latency_batch"], further["latency_batch"]) == (8, 2)
    assert further["speedup"].keys() == found["speedup"].keys()
    assert further["verdict"].endswith(found["explanation"]["verdict"].replace("batch 8", "batch 2"))
    assert (tmp_path / "plans" / "C1.plan").is_file()
    assert (tmp_path / "plans" / "batch-2" / "C1.plan").is_file()


@pytest.mark.parametrize("runtime", ["tensorrt", "onnxruntime"])
def test_each_file_is_read_hashed_and_audited_once(builder: Builder, pair, data, cli, monkeypatch, runtime) -> None:
    calls: list[str] = []
    counted = ("onnx.load", "export.audit.audit_model", "deploy.graph.onnx_file.sha256")
    for name in counted:
        count_calls(monkeypatch, name, calls)
    outcome = cli("benchmark", *pair, *data, "--runtime", runtime, "--batch", 8, "--batch", 2)
    assert outcome.code == 0, outcome.err
    assert len(builder.asked) == {"tensorrt": 18, "onnxruntime": 0}[runtime]
    assert Counter(calls) == dict.fromkeys(counted, 2)


def test_each_engine_is_deserialised_once(gpu, builder: Builder, pair, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    count_calls(monkeypatch, "deploy.builder.engine_build.read_verified", read)
    benchmark_engines(*pair, batches(), EngineSettings(timing=SHORT, rebuilds=2))
    assert gpu.names().count("deserialize") == len(builder.asked) == 6
    assert len(read) == 6  # opening an engine reads its plan and sidecar; explaining it reads neither again


def test_the_cost_is_said_before_the_first_build(gpu: FakeGPU, builder: Builder, pair) -> None:
    said: list[tuple[str, int]] = []
    settings = EngineSettings(batches=(8, 2), timing=SHORT)
    result = benchmark_engines(*pair, batches(), settings, say=lambda text: said.append((text, len(builder.asked))))
    engine = 2 * (4 * 64 + 8 * (64 + 64 + 4))  # weights; images, flat images and logits, in FP16
    assert said == [
        (
            "18 engines to build (3 arms, 3 rebuilds, 2 batches); estimated GPU memory of all rebuilds, without "
            "workspace: 0 MiB; free: 1,024 MiB",
            0,
        )
    ]
    assert result.to_json()["cost"] == {
        **{"engines": 18, "rebuilds": 3, "batches": 2, "rebuilds_together": 3},
        **{"engine_bytes": engine, "needed_bytes": 9 * engine, "free_bytes": 1 << 30},
    }


def test_the_estimate_is_of_the_largest_shape_and_of_all_streams(gpu: FakeGPU, builder: Builder, pair) -> None:
    settings = EngineSettings(BuildSettings(shapes=(1, 6, 16)), Regime("host", streams=2), timing=SHORT, rebuilds=1)
    found = benchmark_engines(*pair, batches(), settings).to_json()["cost"]
    assert found["engine_bytes"] == 2 * (4 * 64 + 2 * 16 * (64 + 64 + 4))


def test_each_batch_has_its_engines_alone_and_each_engine_one_context(gpu: FakeGPU, builder: Builder, pair) -> None:
    benchmark_engines(*pair, batches(), EngineSettings(batches=(8, 2, 4), timing=SHORT))
    assert len(builder.asked) == 27
    assert (gpu.most_open, len(gpu.open_engines)) == (9, 0)
    assert gpu.most_contexts == 1


def test_rebuilds_are_timed_one_after_another_where_memory_is_short(gpu: FakeGPU, builder: Builder, pair) -> None:
    said: list[str] = []
    together = benchmark_engines(*pair, batches(), QUICK).to_json()
    gpu.memory, gpu.most_open = 30_000, 0  # nine engines need about 24 kB, and twice as much must be free
    gpu.calls.clear()
    result = benchmark_engines(*pair, batches(), QUICK, say=said.append)
    assert gpu.memory == 30_000
    assert (gpu.most_open, gpu.most_contexts) == (3, 1)
    assert gpu.names().count("deserialize") == 9
    assert said[0].endswith("; so rebuilds are timed one after another")
    found = result.to_json()
    assert found["cost"]["rebuilds_together"] == 1
    for key in ("speedup", "noise", "latency_regime", "layer_times", "verdict", "accuracy", "latency_repeat"):
        assert found[key] == together[key], key
    assert {name: arm["engines_p50_ms"] for name, arm in found["latency"].items()} == {
        "A": [4.0] * 3,
        "B": [4.0] * 3,
        "C": [2.0] * 3,
    }


def test_later_rebuilds_take_over_the_regime_of_the_first(gpu: FakeGPU, builder: Builder, pair) -> None:
    gpu.memory, gpu.capture = 30_000, "cuStreamEndCapture"
    regime = benchmark_engines(*pair, batches(), QUICK).timed[0].latency.regime
    assert not regime.cuda_graph
    assert regime.note.count("Without a CUDA graph the host launches every kernel") == 1


def test_plans_are_freed_once_they_are_on_disk(gpu: FakeGPU, builder: Builder, pair, monkeypatch) -> None:
    freed: list[str] = []

    class Plan(bytes):
        def __del__(self) -> None:
            freed.append(self.decode())

    def build(*arguments: object) -> Compiled:
        assert len(freed) == len(builder.asked)
        compiled = builder(*arguments)
        return replace(compiled, plan=Plan(compiled.plan))

    monkeypatch.setattr("deploy.builder.engine_build.compile_engine", build)
    with build_arms(*map(OnnxFile, pair), BuildSettings(), rebuilds=2):
        assert freed == ["plan A", "plan B", "plan C"] * 2


def count_calls(monkeypatch: pytest.MonkeyPatch, name: str, calls: list[str]) -> None:
    module, _, function = name.rpartition(".")
    original = getattr(importlib.import_module(module), function)
    monkeypatch.setattr(name, lambda *given, **named: calls.append(name) or original(*given, **named))


def test_a_fixed_batch_of_the_models_is_used(builder: Builder, tmp_path) -> None:
    fixed = classifier(tmp_path / "dense.onnx", np.ones((4, 64)), batch=4)
    assert benchmark_engines(fixed, fixed, batches(), QUICK).timed[0].latency.regime.batch == 4
    with pytest.raises(InputError, match="batches of 3"):
        benchmark_engines(fixed, fixed, batches(), EngineSettings(batches=(3,)))


@pytest.mark.parametrize("number", range(1, 7))
def test_a_build_that_fails_leaves_whole_plans_only(gpu: FakeGPU, builder: Builder, pair, tmp_path, number) -> None:
    builder.fails_at, before = number, gpu.memory
    with pytest.raises(ModelError, match="out of luck"):
        benchmark_engines(*pair, batches(), EngineSettings(plans=tmp_path / "plans"))
    plans = sorted((tmp_path / "plans").glob("*.plan"))
    assert len(plans) == number - 1
    assert all(load_plan(plan) for plan in plans)
    assert not list((tmp_path / "scratch").iterdir())
    assert gpu.memory == before


def test_a_session_that_fails_frees_the_others(gpu: FakeGPU, builder: Builder, pair) -> None:
    before, gpu.memory = gpu.memory, 5000  # enough for two engines
    said: list[str] = []
    with pytest.raises(InputError, match="memory is full"):
        benchmark_engines(*pair, batches(), QUICK, say=said.append)
    assert said[0].endswith("one after another; one rebuild may not fit: use a smaller batch")
    assert gpu.memory == 5000 < before


def test_rtx_is_given_no_timing_cache(builder: Builder, pair, gpu: FakeGPU, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = Backend("tensorrt-rtx", gpu.trt, "1.7")
    for module in ("benchmark.arms", "builder.engine_build", "sessions.engine"):
        monkeypatch.setattr(f"deploy.{module}.find_backend", lambda name="auto": backend)
    monkeypatch.setattr("deploy.builder.engine_build.known_compute_capabilities", lambda _: ["8.0"])
    with build_arms(*map(OnnxFile, pair), BuildSettings()) as builds:
        assert {asked[2] for asked in builder.asked} == {None}
        assert not any(build.warnings for group in builds.values() for build in group)


def test_runtimes(gpu: FakeGPU, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_runtime()[1] == "tensorrt 10.9.0 on Fake A100, compute capability 8.0"
    assert find_runtime("onnxruntime") == (None, "as asked for")
    with pytest.raises(InputError, match="unknown runtime"):
        find_runtime("cuda")
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    backend, why = find_runtime()
    assert backend is None
    assert "cannot import pycuda.driver" in why
    with pytest.raises(MissingDependencyError):
        find_runtime("tensorrt")
    monkeypatch.setattr("deploy.machine.runtime_choice.find_gpu", lambda: None)
    assert "there is none" in find_runtime()[1]
    with pytest.raises(InputError, match="NVIDIA GPU"):
        find_runtime("tensorrt")


AT_ONCE = ["--duration", "0", "--warmup", "0", "--rounds", "2"]


@pytest.fixture
def data(tmp_path) -> list[str]:
    values, labels = batches(40, 40)[0]
    np.savez(tmp_path / "evaluation.npz", images=values, labels=labels)
    np.savez(tmp_path / "training.npz", images=-values)
    files = ["--data", f"npz:{tmp_path / 'training.npz'}", "--eval-data", f"npz:{tmp_path / 'evaluation.npz'}"]
    return [*files, "--mean", "0", "--std", "1", *AT_ONCE]


def test_benchmark_then_explain(builder: Builder, pair, data, cli, tmp_path) -> None:
    plans, out = tmp_path / "plans", tmp_path / "benchmark.json"
    outcome = cli("benchmark", *pair, *data, "--plans", plans, "--out", out, "--min-speedup", 1.5, "--json")
    assert outcome.code == 0, outcome.err
    assert "runtime: tensorrt 10.9.0 on Fake A100" in outcome.err
    assert "9 engines to build (3 arms, 3 rebuilds); estimated GPU memory" in outcome.err
    measured = json.loads(out.read_text())
    assert measured == outcome.json
    plan = ["--plan-b", plans / "B1.plan", "--plan-c", plans / "C1.plan"]
    explained = cli("explain", pair[1], *plan, "--times", out, "--json").json
    assert explained.pop("unknown") == explained.pop("files") == []
    assert explained == measured["explanation"]
    shown = cli("explain", pair[1], *plan, "--verbose").out
    assert KERNELS["C"] in shown
    assert "Unknown without times" in shown
    for arguments, message in (
        (["--plan-b", plans / "C1.plan"], "sparse flag on"),
        (["--plan-c", plans / "B1.plan"], "sparse flag off"),
        (["--times", plans / "B1.plan.json"], "contains no layer times"),
        (["--plan-c", tmp_path / "none.plan"], "none.plan"),
    ):
        outcome = cli("explain", pair[1], *arguments)
        assert outcome.code == 1
        assert message in outcome.err
    for arguments in (plan, ["--times", out]):
        outcome = cli("explain", pair[0], *arguments)
        assert outcome.code == 1
        assert "dense.onnx" in outcome.err


def test_without_a_gpu_plans_are_explained_by_their_logs(builder: Builder, pair, monkeypatch, tmp_path, cli) -> None:
    benchmark_engines(*pair, batches(), EngineSettings(timing=SHORT, rebuilds=1, plans=tmp_path / "plans"))
    monkeypatch.setattr("deploy.explain.from_plans.find_gpu", lambda: None)
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    found = cli("explain", pair[1], "--plan-c", tmp_path / "plans" / "C1.plan", "--json").json
    assert found["chosen_layers"] == 1
    assert found["layers"][0]["tactic"] is None
    assert any("Without a GPU" in note for note in found["unknown"])


def test_a_failed_gate_and_the_printed_tables(builder: Builder, pair, data, cli) -> None:
    outcome = cli("benchmark", *pair, *data, "--rebuilds", 1, "--no-cuda-graph", "--min-speedup", 3, "--verbose")
    assert outcome.code == 1
    assert outcome.err.strip().splitlines()[-1] == "error: the speed-up is 2.00, 3 is required"
    assert all(text in outcome.out for text in ("tensorrt 10.9.0", "CHOSEN_NO_GAIN", KERNELS["C"]))


def test_predict_measures_on_a_gpu_and_estimates_otherwise(builder: Builder, pair, cli, tmp_path) -> None:
    out = tmp_path / "predict.json"
    outcome = cli("predict", pair[0], *AT_ONCE, "--shapes", "1/4/8", "--out", out, "--json")
    assert outcome.code == 0, outcome.err
    assert "measured with tensorrt" in outcome.err
    assert "9 engines to build" in outcome.err
    content = outcome.json
    assert content == json.loads(out.read_text())
    assert content["estimate"] is False
    assert content["shapes"] == {"image": [4, 1, 8, 8]}
    assert content["cost"]["engines"] == 9
    assert content["layers"][0]["is_sparse"]  # the copy's; the file itself is as it was
    assert read_profile(out)["conv"].gain == content["layers"][0]["gain"]
    assert "temporary copy" in cli("predict", pair[0], *AT_ONCE).out
    assert builder.asked[0][3]["image"][1] == (4, 1, 8, 8)
    assert builder.asked[-1][3]["image"][1] == (8, 1, 8, 8)
    assert cli("predict", pair[0], "--estimate", "--json").json["estimate"]
    single = classifier(tmp_path / "single.onnx", np.ones((4, 64)), dtype=np.float32)
    assert cli("predict", single, "--json").json["estimate"]
    outcome = cli("predict", single, "--measure")
    assert outcome.code == 1
    assert "FP32" in outcome.err
    assert not list((tmp_path / "scratch").iterdir())


@pytest.mark.parametrize("way", ["--measure", "--estimate"])
def test_predict_reads_the_file_once(builder: Builder, pair, cli, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    read, load = [], onnx.load
    monkeypatch.setattr("onnx.load", lambda path, **options: read.append(path) or load(path, **options))
    for flags in ([], [way]):
        read.clear()
        assert cli("predict", pair[0], *AT_ONCE, *flags).code == 0
        assert read.count(str(pair[0])) == (1 if flags == ["--estimate"] else 2)  # the pruned copy reads the weights


@pytest.mark.gpu
@pytest.mark.skipif(find_gpu() is None, reason="there is no GPU")
def test_on_a_real_gpu(tmp_path, cli) -> None:
    """The arms agree with ONNX Runtime, and every layer is explained."""
    from deploy.predict import try_pruning
    from tests.support.engines import conv_net

    backend, why = find_runtime()
    if backend is None:
        pytest.skip(why)
    onnx.save(conv_net(), str(tmp_path / "m.onnx"))
    values = np.random.default_rng(0).normal(size=(20, 3, 8, 8)).astype(np.float32)
    labels = OnnxSession(tmp_path / "m.onnx").run(values).argmax(axis=1)
    settings = EngineSettings(timing=QUICK_TIMING, plans=tmp_path / "plans")
    result = benchmark_engines(tmp_path / "m.onnx", tmp_path / "m.onnx", [(values, labels)], settings)
    json.dumps(result.to_json(), allow_nan=False)
    assert all(arm.top1 >= 90 for arm in result.accuracy.arms.values())
    assert all(result.layer_times.values())
    assert result.explanation is not None
    assert len(result.explanation.layers) == 3
    plans = ["--plan-b", tmp_path / "plans" / "B1.plan", "--plan-c", tmp_path / "plans" / "C1.plan"]
    assert cli("explain", tmp_path / "m.onnx", *plans, "--json").code == 0
    assert try_pruning(tmp_path / "m.onnx", EngineSettings(timing=QUICK_TIMING)).to_json()["estimate"] is False
