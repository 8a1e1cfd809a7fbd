"""Files for NVIDIA's tools. Their keys are those that trtexec writes and that the tools' loaders require."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from deploy.explain import export_layers
from deploy.machine import GPU, Backend
from sparsegpt_core.errors import InputError
from tests.support.fake_gpu import FakeGPU, write_plan

PROFILE_KEYS = {"name", "timeMs", "averageMs", "medianMs", "percentage"}
"""Keys of a record of ``trtexec --exportProfile``, from exportJSONProfile in TensorRT's sampleReporting.cpp."""
LAYER_KEYS = {"Name", "LayerType", "Inputs", "Outputs"}
"""Keys that validate_layers in NVIDIA's trt-perf-analysis skill requires."""
TENSOR_KEYS = {"Name", "Dimensions"}
"""Keys that validate_tensor in the same file requires."""


def tensor(name: str, *sizes: int) -> dict:
    return {"Name": name, "Location": "Device", "Dimensions": list(sizes), "Format/Datatype": "Row major linear FP32"}


def layer(name: str, source: str, target: str, **more: object) -> dict:
    return {
        "Name": name,
        "LayerType": "CaskConvolution",
        "Inputs": [tensor(source, 4, 1, 8, 8)],
        "Outputs": [tensor(target, 4, 4)],
        "TacticName": "sm80_xmma_fprop_sparse_conv",
        "StreamId": 0,
        "Metadata": "[ONNX Layer: conv]\x1e[ONNX Layer: relu]",
        **more,
    }


INFORMATION = {
    "Layers": [
        layer("conv", "image", "hidden"),
        layer("fused", "hidden", "logits"),
        layer("conv [profile 1]", "a", "b"),
    ],
    "Bindings": ["image", "logits"],
}


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeGPU:
    """A GPU whose engines have the layers ``conv`` and ``fused``. TensorRT does not escape its separators in JSON."""
    fake = FakeGPU()
    monkeypatch.setitem(sys.modules, "pycuda.driver", fake.pycuda)
    monkeypatch.setitem(sys.modules, "pycuda", type(sys)("pycuda"))
    fake.trt.LayerInformationFormat = SimpleNamespace(JSON="json")
    fake.information = json.dumps(INFORMATION).replace("\\u001e", "\x1e")
    inspector = SimpleNamespace(get_engine_information=lambda form: {"json": fake.information}[form])
    engine = "tests.support.fake_gpu.FakeEngine.create_engine_inspector"
    monkeypatch.setattr(engine, lambda self: inspector, raising=False)
    monkeypatch.setattr("deploy.sessions.engine.find_backend", lambda name: Backend(name, fake.trt, "10.9.0"))
    monkeypatch.setattr("deploy.explain.layer_export.find_gpu", lambda: GPU("Fake A100", "580", "8.0", "13.0"))
    return fake


def test_files_have_the_published_structure(gpu: FakeGPU, tmp_path: Path) -> None:
    plans = {arm: write_plan(tmp_path / f"{arm}1.plan") for arm in ("B", "C")}
    files, unmatched = export_layers(plans, tmp_path / "layers")
    assert unmatched == []
    assert [file.name for file in files] == [
        *("layers_B.json", "profile_B.json", "graph_B.json"),
        *("layers_C.json", "profile_C.json", "graph_C.json"),
    ]
    layers, profile, graph = (json.loads(file.read_text()) for file in files[3:])
    assert [set(record) >= LAYER_KEYS for record in layers] == [True, True]
    tensors = [each for record in layers for each in (*record["Inputs"], *record["Outputs"])]
    assert all(set(each) >= TENSOR_KEYS for each in tensors)
    assert layers[0]["Metadata"] == "[ONNX Layer: conv]\x1e[ONNX Layer: relu]"
    assert profile[0] == {"count": 100}
    assert [set(record) for record in profile[1:]] == [PROFILE_KEYS, PROFILE_KEYS]
    assert [record["name"] for record in profile[1:]] == [record["Name"] for record in layers] == ["conv", "fused"]
    conv, fused = profile[1:]
    assert (conv["timeMs"], conv["averageMs"], conv["medianMs"]) == (50.0, 0.5, 0.5)
    assert (fused["timeMs"], fused["averageMs"]) == (37.5, 0.375)
    assert conv["percentage"] + fused["percentage"] == pytest.approx(100)
    assert graph == {"Layers": layers, "Bindings": ["image", "logits"]}
    assert ("set_input_shape", "image", (4, 1, 8, 8)) in gpu.calls  # the profile's opt shape


def test_layers_without_a_time_are_reported(gpu: FakeGPU, tmp_path: Path) -> None:
    gpu.information = json.dumps({"Layers": [layer("conv", "image", "logits")]})
    _, unmatched = export_layers({"C": write_plan(tmp_path / "m.plan")}, tmp_path)
    assert len(unmatched) == 1
    assert "m.plan, layers and profiled layers differ" in unmatched[0]


def test_nothing_is_written_where_an_engine_fails(gpu: FakeGPU, tmp_path: Path, monkeypatch) -> None:
    good, bad = write_plan(tmp_path / "good.plan"), write_plan(tmp_path / "bad.plan")
    bad.write_bytes(b"changed")
    with pytest.raises(InputError, match=r"bad\.plan is not the plan"):
        export_layers({"B": good, "C": bad}, tmp_path / "out")
    gpu.information = json.dumps({"Layers": ["conv", "fused"]})
    with pytest.raises(InputError, match="without detailed profiling verbosity"):
        export_layers({"B": good}, tmp_path / "out")
    with pytest.raises(InputError, match="no plan"):
        export_layers({}, tmp_path / "out")
    monkeypatch.setattr("deploy.explain.layer_export.find_gpu", lambda: None)
    with pytest.raises(InputError, match="only on its GPU"):
        export_layers({"B": good}, tmp_path / "out")
    assert not (tmp_path / "out").exists()
