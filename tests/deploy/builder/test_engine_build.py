"""Real builds: TensorRT-RTX builds engines without a GPU."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import deploy.machine.backends
from deploy.builder import BuildResult, BuildSettings, build_engine, load_plan
from deploy.builder.compiler import compile_engine, precision_flags, share_profiles
from deploy.builder.engine_build import RTX_NOTE
from deploy.graph import read_graph, resolve_shapes
from deploy.machine import find_backend
from sparsegpt_core.errors import InputError, MissingDependencyError, ModelError
from sparsegpt_core.files import sidecar_path
from tests.support.engines import conv_net

RTX = {"backend": "tensorrt-rtx", "compute_capability": "8.6"}
PROMISED = {"plan", "backend", "backend_version", "sparse_flag", "eligible_layers", "chosen_layers", "seconds"}


PROMISED |= {"bytes", "sha256", "compute_capability", "note", "onnx", "settings", "environment", "build_log"}


@pytest.fixture
def half(tmp_path: Path) -> Path:
    onnx.save(conv_net(), str(tmp_path / "half.onnx"))
    return tmp_path / "half.onnx"


@pytest.fixture(scope="module", autouse=True)
def _rtx() -> None:
    pytest.importorskip("tensorrt_rtx", reason="engines are built for real, which needs tensorrt-rtx")


def test_half_precision_build(half: Path) -> None:
    plan, stages = half.with_name("sparse.plan"), []
    result = build_engine(half, plan, BuildSettings(**RTX), lambda *step: stages.append(step))
    record = json.loads(half.with_name("sparse.plan.json").read_text())
    assert record == json.loads(json.dumps(result.to_json()))
    assert set(record) >= PROMISED
    assert record["backend"] == "tensorrt-rtx"
    assert record["compute_capability"] == "8.6"
    assert record["sparse_flag"] is True
    assert record["eligible_layers"] == 2
    assert record["chosen_layers"] is None
    assert record["note"] == RTX_NOTE
    assert record["warnings"] == []
    assert record["bytes"] == plan.stat().st_size
    assert record["sha256"] == hashlib.sha256(plan.read_bytes()).hexdigest()
    assert record["onnx"]["sha256"] == hashlib.sha256(half.read_bytes()).hexdigest()
    assert record["settings"]["shapes"]["input"] == [[1, 3, 8, 8], [8, 3, 8, 8], [32, 3, 8, 8]]
    assert load_plan(plan) == (plan.read_bytes(), json.loads(sidecar_path(plan).read_text()))
    assert stages[:3] == [("parse", 0, 1), ("parse", 1, 1), ("build", 0, 100)]
    percents = [done for stage, done, _ in stages[2:] if stage == "build"]
    assert len(percents) > 5
    assert percents == sorted(set(percents))
    assert percents[-1] == 100
    assert {name: record["settings"][name] for name in ("tf32", "fp16", "int8")} == {
        "tf32": True,
        "fp16": None,
        "int8": None,
    }
    assert {path.name for path in half.parent.iterdir()} == {"half.onnx", "sparse.plan", "sparse.plan.json"}


def test_single_precision_is_built_with_a_warning(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    onnx.save(conv_net(np.float32), str(tmp_path / "m.onnx"))
    settings = BuildSettings(**RTX, opt_level=1, workspace=1 << 30, tactic_sources=("jit_convolutions",))
    result = build_engine(tmp_path / "m.onnx", tmp_path / "m.plan", settings)
    assert ["FP32" in text for text in result.warnings] == [True]
    dense = build_engine(tmp_path / "m.onnx", tmp_path / "d.plan", BuildSettings(**RTX, sparse=False))
    assert dense.warnings == []
    assert dense.sparse_flag is False
    assert capfd.readouterr().out == ""  # standard output belongs to --json


def test_dense_weights_warn(tmp_path: Path) -> None:
    model = conv_net(image=(4, 3, 8, 8))
    for weight in model.graph.initializer:
        weight.CopyFrom(numpy_helper.from_array(np.ones(tuple(weight.dims), np.float16), weight.name))
    onnx.save(model, str(tmp_path / "m.onnx"))
    result = build_engine(tmp_path / "m.onnx", tmp_path / "m.plan", BuildSettings(**RTX))
    assert result.eligible_layers == 0
    assert any("has no effect" in text for text in result.warnings)


def test_compute_capability_defaults_to_ampere(half: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploy.builder.engine_build.find_gpu", lambda: None)
    assert build_engine(half, half.with_name("p"), BuildSettings(backend="tensorrt-rtx")).compute_capability == "8.6"


def test_a_gpu_without_sparse_tensor_cores_warns(half: Path) -> None:
    old, new = (BuildSettings(backend="tensorrt-rtx", compute_capability=each) for each in ("7.5", "8.0"))
    (warning,) = build_engine(half, half.with_name("old.plan"), old).warnings
    assert "7.5 has no sparse tensor cores" in warning
    assert build_engine(half, half.with_name("new.plan"), new).warnings == []


def test_rtx_says_that_it_keeps_no_timing_cache(half: Path) -> None:
    cache = half.with_name("tactics.cache")
    result = build_engine(half, half.with_name("a.plan"), BuildSettings(**RTX, timing_cache=cache))
    assert any("timing cache" in text for text in result.warnings)
    assert result.to_json()["settings"]["timing_cache"] == str(cache)
    assert not cache.exists()


def test_external_data_is_found(tmp_path: Path) -> None:
    onnx.save(conv_net(), str(tmp_path / "m.onnx"), save_as_external_data=True, location="m.bin", size_threshold=0)
    assert build_engine(tmp_path / "m.onnx", tmp_path / "m.plan", BuildSettings(**RTX)).eligible_layers == 2


def attempt(path: Path, **settings) -> BuildResult:
    return build_engine(path, path.with_name("out.plan"), BuildSettings(**{**RTX, **settings}))


@pytest.mark.parametrize("content", [b"", b"garbage" * 50, None])
def test_a_file_that_is_not_a_model_is_refused(half: Path, content: bytes | None) -> None:
    half.write_bytes(half.read_bytes()[:700] if content is None else content)
    with pytest.raises(InputError, match=r"half\.onnx"):
        attempt(half)
    assert not half.with_name("out.plan").exists()


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.onnx"):
        attempt(tmp_path / "none.onnx")


def test_errors_quote_the_parser(half: Path) -> None:
    onnx.save(conv_net(op="NoSuchOperator"), str(half))
    with pytest.raises(ModelError, match="NoSuchOperator") as caught:
        attempt(half)
    assert "\n" not in str(caught.value)
    assert caught.value.hint


def test_errors_without_a_driver_name_the_cause(half: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As TensorRT 8.6 does: the builder is a null pointer, and the cause is a warning."""
    rtx = find_backend("tensorrt-rtx")
    warning = "CUDA initialization failure with error: 35. Please check your CUDA installation"

    def no_builder(logger) -> None:
        logger.log(logger.Severity.WARNING, warning)
        logger.log(logger.Severity.WARNING, "Unable to determine GPU memory usage")
        raise TypeError("pybind11::init(): factory function returned nullptr")

    monkeypatch.setattr(rtx.module, "Builder", no_builder)
    backend, graph = dataclasses.replace(rtx, name="tensorrt"), read_graph(half)
    with pytest.raises(ModelError, match=r"cannot build .*half\.onnx: CUDA initialization failure with error: 35"):
        compile_engine(backend, half, graph, resolve_shapes(graph.inputs, None), BuildSettings(), None)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"compute_capability": "99.9"}, "99.9"),
        ({"shapes": {"other": ((1,), (1,), (1,))}}, "no input 'other'"),
        ({"tactic_sources": ("cublaz",)}, "cublaz"),
        ({"hardware": "ampere-plus"}, "no hardware compatibility"),
    ],
)
def test_settings_that_do_not_fit(half: Path, settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        attempt(half, **settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"backend": "tvm"},
        {"compute_capability": "Ampere"},
        {"compute_capability": "٨.٦"},
        {"opt_level": 6},
        {"workspace": 0},
        {"hardware": "turing-plus"},
    ],
)
def test_settings_are_validated(settings: dict) -> None:
    with pytest.raises(InputError):
        BuildSettings(**settings)


@pytest.mark.parametrize("version_compatible", [False, True])
def test_compatibility_reaches_the_builder(half: Path, monkeypatch: pytest.MonkeyPatch, version_compatible) -> None:
    import polygraphy.backend.trt as polygraphy

    from deploy.builder.compiler import _config

    asked = {}
    monkeypatch.setattr(polygraphy, "CreateConfig", lambda **settings: asked.update(settings))
    backend = dataclasses.replace(find_backend("tensorrt-rtx"), name="tensorrt")
    settings = BuildSettings(version_compatible=version_compatible, hardware="ampere-plus")
    _config(backend, read_graph(half), {}, settings, None)
    assert asked["version_compatible"] is version_compatible
    assert asked["hardware_compatibility_level"] == backend.module.HardwareCompatibilityLevel.AMPERE_PLUS
    old = dataclasses.replace(
        backend, module=SimpleNamespace(**vars(backend.module) | {"HardwareCompatibilityLevel": None})
    )
    with pytest.raises(InputError, match="no hardware compatibility 'ampere-plus'"):
        _config(old, read_graph(half), {}, settings, None)


def test_building_as_for_tensorrt_leaves_standard_output_alone(half: Path, capfd: pytest.CaptureFixture[str]) -> None:
    backend, graph = dataclasses.replace(find_backend("tensorrt-rtx"), name="tensorrt"), read_graph(half)
    compile_engine(backend, half, graph, resolve_shapes(graph.inputs, None), BuildSettings(), None)
    assert capfd.readouterr().out == ""


def test_the_model_is_not_overwritten(half: Path) -> None:
    with pytest.raises(InputError, match="overwrite"):
        build_engine(half, half, BuildSettings(**RTX))


def test_load_plan_refuses_a_plan_that_its_sidecar_does_not_record(half: Path) -> None:
    plan = half.with_name("p.plan")
    with pytest.raises(InputError, match=r"p\.plan"):
        load_plan(plan)
    plan.write_bytes(b"code")
    with pytest.raises(InputError, match=r"p\.plan\.json"):
        load_plan(plan)
    for record in ({"sha256": "0" * 64}, {}, [], None):
        sidecar_path(plan).write_text(json.dumps(record))
        with pytest.raises(InputError, match="not the plan"):
            load_plan(plan)


def test_only_weakly_typed_builders_get_precision_flags(tmp_path: Path) -> None:
    onnx.save(conv_net(), str(tmp_path / "m.onnx"))
    graph = read_graph(tmp_path / "m.onnx")
    old, new = SimpleNamespace(FP16=0, INT8=1), SimpleNamespace()
    typed, untyped = SimpleNamespace(STRONGLY_TYPED=1), SimpleNamespace()

    def flags(builder, network):
        return precision_flags(SimpleNamespace(BuilderFlag=builder, NetworkDefinitionCreationFlag=network), graph)

    assert flags(old, untyped) == {"tf32": True, "fp16": True, "int8": False}  # 8.6
    assert flags(old, typed) == flags(new, typed) == flags(new, untyped) == {"tf32": True}  # 10.x, 11.x
    graph = dataclasses.replace(graph, types=frozenset({"FLOAT", "INT8"}), quantized=True)
    assert flags(old, untyped) == {"tf32": True, "fp16": True, "int8": True}  # the layers beside Q/DQ run in FP16


def test_single_precision_layers_may_use_tf32(half: Path) -> None:
    """As in TensorRT and trtexec; Polygraphy clears the flag unless it is asked for."""
    from polygraphy.backend.trt import NetworkFromOnnxPath

    from deploy.builder.compiler import _config, _silenced

    rtx, graph = find_backend("tensorrt-rtx"), read_graph(half)
    builder, network, _ = NetworkFromOnnxPath(str(half), strongly_typed=True)()
    profile = resolve_shapes(graph.inputs, None)
    for backend, capability in ((rtx, "8.6"), (dataclasses.replace(rtx, name="tensorrt"), None)):
        with _silenced():
            config = _config(backend, graph, profile, BuildSettings(), capability)(builder, network)
        assert config.get_flag(backend.module.BuilderFlag.TF32)


def test_strongly_typed_builders_take_fp16_from_the_exported_graph(tmp_path: Path) -> None:
    """TensorRT 11 has no FP16 flag: a layer's type is the graph's."""
    from polygraphy.backend.trt import NetworkFromOnnxPath

    from deploy.builder.compiler import _silenced
    from export.precision import to_fp16

    trt = find_backend("tensorrt-rtx").module
    onnx.save(to_fp16(conv_net(np.float32)), str(tmp_path / "m.onnx"))
    with _silenced():
        _, network, _ = NetworkFromOnnxPath(str(tmp_path / "m.onnx"), strongly_typed=True)()
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    weighted = [layer for layer in layers if layer.type.name in {"CONVOLUTION", "MATRIX_MULTIPLY"}]
    assert [layer.get_output(0).dtype for layer in weighted] == [trt.DataType.HALF] * 3


def test_find_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_backend("tensorrt-rtx").is_rtx
    with pytest.raises(InputError, match="unknown backend"):
        find_backend("cuda")
    import polygraphy.config

    monkeypatch.setattr(polygraphy.config, "USE_TENSORRT_RTX", False)
    with pytest.raises(InputError, match="already loaded"):
        find_backend("tensorrt-rtx")
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependencyError) as caught:
        find_backend()
    assert all(command in caught.value.hint for command in ("pip install tensorrt", "pip install tensorrt-rtx-cu13"))


@pytest.mark.parametrize(("gpu", "expected"), [(None, "tensorrt-rtx"), (object(), "tensorrt")])
def test_auto_takes_the_backend_that_can_build_here(monkeypatch, gpu, expected) -> None:
    monkeypatch.setattr(deploy.machine.backends, "find_gpu", lambda: gpu)
    monkeypatch.setattr(deploy.machine.backends, "_point_polygraphy_at", lambda name: None)
    both = SimpleNamespace(Builder=None, __version__="1")
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, both)
    assert find_backend().name == expected


@pytest.mark.parametrize(
    ("features", "flags", "expected"),
    [
        ({"PROFILE_SHARING_0806": 7}, {}, [(7, True)]),
        ({"PROFILE_SHARING_0806": 7}, {"STRONGLY_TYPED": 1}, []),
        ({}, {}, []),
    ],
)
def test_contexts_share_a_profile_where_the_builder_needs_a_flag(features: dict, flags: dict, expected: list) -> None:
    trt = SimpleNamespace(
        PreviewFeature=SimpleNamespace(__members__=features), NetworkDefinitionCreationFlag=SimpleNamespace(**flags)
    )
    flags_set: list = []
    config = SimpleNamespace(set_preview_feature=lambda *feature: flags_set.append(feature))
    assert share_profiles(trt, lambda builder, network: config)("builder", "network") is config
    assert flags_set == expected
