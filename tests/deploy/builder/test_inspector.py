"""The engine inspector's JSON, as TensorRT 8.5, 8.6, 10.x and 11.x write it."""

from __future__ import annotations

import contextlib
import json
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.builder import EngineLayer, inspect_engine, node_names
from deploy.builder.inspector import LayerTensor, read_layers
from sparsegpt_core.errors import InputError

DENSE = "sm80_xmma_fprop_implicit_gemm_indexed_wo_smem_f16f16_f16f16_f16_nhwckrsc_nhwc_tilesize128x32x64_stage1"
SPARSE = "sm80_xmma_fprop_avdt_sparse_int8int8_tilesize64x64x64_tapsperload3_threadspercta128_r3s3_u1v1_scalebias_relu"
NHWC8 = "Channel major FP16 format where channel % 8 == 0"
C32 = "Thirty-two wide channel vectorized row major Int8 format"


def tensor(name: str, layout: str = NHWC8) -> dict[str, Any]:
    return {"Name": name, "Location": "Device", "Dimensions": [1, 64, 56, 56], "Format/Datatype": layout}


def record(name: str, kind: str = "CaskConvolution", **others: Any) -> dict[str, Any]:
    return {"Name": name, "LayerType": kind, "Inputs": [tensor("x")], "Outputs": [tensor("y")], **others}


def read(*layers: Any, **others: Any) -> tuple[EngineLayer, ...]:
    return read_layers(json.dumps({"Layers": list(layers), **others}))


def test_8_5_names_nodes_in_the_layers_name_alone() -> None:
    copy, conv, pair = read(
        record("Reformatting CopyNode for Input Tensor 0 to conv1 + relu1", "Reformat", TacticValue="0x3e8"),
        record("conv1 + relu1", AllowSparse=0, TacticName=DENSE, TacticValue="0x1"),
        record("conv2 || conv3", TacticName=SPARSE),
        Bindings=["input", "logits"],
    )
    assert (copy.origins, copy.tactic, copy.sparse) == ((), None, None)
    assert (conv.origins, conv.tactic, conv.sparse) == (("conv1", "relu1"), DENSE, False)
    assert conv.inputs == (LayerTensor("x", "FP16", NHWC8),)
    assert (pair.origins, pair.sparse, pair.has_sparse_weights) == (("conv2", "conv3"), True, None)


@pytest.mark.parametrize("separator", ["\x1e", "\x1f", ""])
def test_metadata_names_the_nodes_from_8_6_on(separator: str) -> None:
    metadata = separator.join(["[ONNX Layer: layer1.0.conv1]", "[ONNX Layer: /Add]", "[ONNX Layer: odd [0]]"])
    (layer,) = read(record("layer1.0.conv1 + /Add", Metadata=metadata, HasSparseWeights=1, TacticName=DENSE))
    assert layer.origins == ("layer1.0.conv1", "/Add", "odd [0]")
    assert (layer.has_sparse_weights, layer.sparse) == (True, False)  # claimed, and not so
    raw = f'{{"Layers": [{{"Name": "a", "Metadata": "[ONNX Layer: b]{separator}[ONNX Layer: c]"}}]}}'
    assert read_layers(raw)[0].origins == ("b", "c")


def test_myelin_of_10() -> None:
    gemm, kernel, plain, foreign = read(
        record("fc_myl9_4", "gemm", Inputs=[tensor("h", "Half")], TacticName=DENSE, Metadata="[ONNX Layer: fc]"),
        record("__myl_MulAdd_myl9_5", "kgen", TacticName="__myl_MulAdd_0x1f", Metadata="[ONNX Layer: conv9]"),
        record("conv4", "CublasConvolution", TacticName="0x00000000000003e8"),
        record("{ForeignNode[conv5...conv8]}", "Myelin", TacticValue="0x0", Metadata=""),
    )
    assert (gemm.origins, gemm.sparse, gemm.inputs[0].precision) == (("fc",), False, "FP16")
    assert (kernel.origins, kernel.sparse) == (("conv9",), None)
    assert plain.sparse is None
    assert (foreign.origins, foreign.sparse) == (("{ForeignNode[conv5...conv8]}",), None)


def test_11_splits_format_and_type() -> None:
    split = {"Name": "x", "Dimensions": [1, 64], "DataType": "Half", "Format": "Row major linear format (kLINEAR)"}
    (layer,) = read(record("fc", "gemm", Inputs=[split]), **{"I/O Tensors": [{"Name": "x", "IOMode": "Input"}]})
    assert layer.inputs == (LayerTensor("x", "FP16", "Row major linear format (kLINEAR)"),)


@pytest.mark.parametrize(
    ("layout", "precision"),
    [
        ("Row major linear FP32", "FP32"),
        (C32, "INT8"),
        ("Channel major BFloat16 format where channel % 8 == 0", "BF16"),
        ("Row major linear FP8 format", "FP8"),
        *(("Float", "FP32"), ("Int8", "INT8"), ("UInt8", "UINT8"), ("Int64", "INT64"), ("BFloat16", "BF16")),
        *(("Unknown format", None), ("", None)),
    ],
)
def test_precisions(layout: str, precision: str | None) -> None:
    assert read(record("a", Inputs=[tensor("x", layout)]))[0].inputs[0].precision == precision


@pytest.mark.parametrize(
    ("tactic", "sparse"),
    [
        *(
            (SPARSE, True),
            ("sm86_xmma_spgemm_f16", True),
            ("ampere_h16816_SPMMA_128", True),
            ("x_sptensor16x8x32", True),
        ),
        *((DENSE, False), ("__myl_sparse", None), ("0x0", None), ("", None), (None, None), (7, None)),
    ],
)
def test_the_tactics_name_decides(tactic: Any, sparse: bool | None) -> None:
    assert read(record("a", TacticName=tactic, HasSparseWeights=1))[0].sparse is sparse


def test_names_alone_and_further_profiles() -> None:
    layers = read("conv1 + relu1", "conv1 + relu1 [profile 1]", "fc")
    assert [(layer.name, layer.origins, layer.sparse) for layer in layers] == [
        ("conv1 + relu1", ("conv1", "relu1"), None),
        ("fc", ("fc",), None),
    ]


def test_fields_of_the_wrong_type() -> None:
    layer, bare = read({"Name": 3, "Inputs": "none", "Outputs": [1, {}], "Metadata": None, "TacticName": []}, {})
    assert layer == EngineLayer("3", origins=("3",), outputs=(LayerTensor("", None, ""),))
    assert bare == EngineLayer("")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "{}",
        '{"Layers": {}}',
        '{"Layers": [1]}',
        '{"Layers": [{"Name": "conv',
        "Layer(s): conv1",
        "[" * 100_000,
    ],
)
def test_text_that_is_not_from_the_inspector_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="inspector") as caught:
        read_layers(text)
    assert "JSON" in caught.value.hint


json_values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["Name", "Inputs", "Metadata"]), inner),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.lists(json_values))
def test_any_json_is_read_or_refused(layers: list[Any]) -> None:
    with contextlib.suppress(InputError):
        assert len(read(*layers)) <= len(layers)


def test_node_names() -> None:
    assert node_names("a + b || c") == ("a", "b", "c")
    assert node_names("model+head") == ("model+head",)
    assert node_names("") == ()


def test_inspect_engine_asks_for_json() -> None:
    trt: Any = SimpleNamespace(LayerInformationFormat=SimpleNamespace(JSON="json"))
    inspector = SimpleNamespace(get_engine_information=lambda wanted: {"json": '{"Layers": ["a"]}'}[wanted])
    engine = SimpleNamespace(create_engine_inspector=lambda: inspector)
    assert inspect_engine(trt, engine) == (EngineLayer("a", origins=("a",)),)
