"""The audit of missing, broken, hostile and foreign files: a result or one line of error, never a traceback."""

import contextlib
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.helper import make_node as node

from export.audit import audit_model, load_model, write_metadata
from sparsegpt_core.errors import InputError
from sparsegpt_core.reasons import Reason
from tests.support.graphs import make_graph, make_model

FOREIGN = sorted((Path(onnx.__file__).parent / "backend" / "test" / "data").rglob("*.onnx"))


def valid_model() -> onnx.ModelProto:
    """A graph with every operator that the auditor follows."""
    nodes = [
        node("QuantizeLinear", ["w", "s", "z"], ["q"], axis=0),
        node("DequantizeLinear", ["q", "s", "z"], ["d"], axis=0),
        node("Transpose", ["d"], ["t"], perm=[1, 0]),
        node("Reshape", ["t", "shape"], ["r"]),
        node("Cast", ["r"], ["c"], to=1),
        node("CastLike", ["c", "s"], ["weight"]),
        node("Conv", ["x", "weight"], ["y"], name="conv"),
    ]
    tensors = {"w": np.ones((8, 4), "f"), "s": np.ones(8, "f"), "z": np.zeros(8, "b"), "shape": np.array([0, -1, 1, 1])}
    model = make_model(make_graph(nodes, tensors, inputs=["x"]))
    write_metadata(model, {"pattern": "2:4", "dense": {"conv": "EXCLUDED"}})
    return model


CONTENT = valid_model().SerializeToString()


def refused(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        audit_model(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert caught.value.hint
    return message


def test_the_model_that_is_broken_below_is_fine(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(CONTENT)
    (layer,) = audit_model(path).layers
    assert (layer.name, layer.weight, layer.shape, layer.reason) == ("conv", "w", (4, 8, 1, 1), Reason.EXCLUDED)


def test_missing_files_and_directories_are_refused(tmp_path):
    assert "no file at" in refused(tmp_path / "missing.onnx")
    assert "Is a directory" in refused(tmp_path)


@pytest.mark.parametrize("name", ["model.onnx", "model.json", "model.txt", "model.onnxtxt", "model"])
@pytest.mark.parametrize(
    "content",
    [b"", b"hello\nworld\n", b"{}", bytes(range(256)) * 9, bytes(4096), CONTENT[: len(CONTENT) // 2], CONTENT[:-1]],
    ids=["empty", "text", "JSON", "bytes", "zeros", "half", "all but the end"],
)
def test_files_that_are_not_onnx_are_refused(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    assert "truncated or not an ONNX file" in refused(path)


def test_missing_external_data_is_refused(tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(valid_model(), str(path), save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert audit_model(path).layers[0].shape == (4, 8, 1, 1)
    (tmp_path / "weights.bin").write_bytes(b"")
    refused(path)
    (tmp_path / "weights.bin").unlink()
    assert "weights.bin" in refused(path)


@pytest.mark.parametrize(
    ("nodes", "tensors"),
    [
        ([node("Cast", ["w"], ["weight"])], {}),
        ([node("Reshape", ["w", "shape"], ["weight"])], {"shape": np.array([5, 5, 1, 1])}),
        ([node("Transpose", ["w"], ["weight"], perm=[0, 0])], {}),
        ([node("Identity", ["weight"], ["weight"])], {}),
        ([node("Identity", ["b"], ["weight"]), node("Identity", ["weight"], ["b"])], {}),
        ([node("Identity", [], ["weight"])], {}),
        ([], {"weight": onnx.TensorProto(name="weight", data_type=1, dims=[4, 4, 1, 1], raw_data=bytes(9))}),
    ],
    ids=["Cast without type", "Reshape", "Transpose", "self", "circle", "no input", "too few bytes"],
)
def test_malformed_graphs(tmp_path, nodes, tensors):
    path = tmp_path / "model.onnx"
    graph = make_graph([*nodes, node("Conv", ["x", "weight"], ["y"])], {"w": np.ones((4, 4), "f"), **tensors}, ["x"])
    onnx.save(make_model(graph), str(path))
    (layer,) = audit_model(path).layers
    assert (layer.shape, layer.reason) == (None, Reason.NOT_CONSTANT)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (node("Conv", ["x"], ["y"]), None),
        (node("Conv", ["x", ""], ["y"]), Reason.NOT_CONSTANT),
        (node("Conv", ["x", "flat"], ["y"]), Reason.CHANNELS_NOT_MULTIPLE),
        (node("Conv", ["x", "empty"], ["y"]), Reason.CHANNELS_NOT_MULTIPLE),
        (node("Gemm", ["x", "flat"], ["y"], transB=1), Reason.CHANNELS_NOT_MULTIPLE),
        (node("Gemm", ["x", "square"], ["y"], transB=-1), Reason.NOT_NM),
        (node("MatMul", ["x", "words"], ["y"]), Reason.NOT_NM),
    ],
    ids=str,
)
def test_malformed_layers(layer, reason):
    tensors = {"flat": np.ones(4, "f"), "empty": np.ones((4, 0, 1, 1), "f"), "square": np.ones((4, 4), "f")}
    tensors["words"] = np.array([["a"] * 4] * 4, dtype=object)
    graph = make_graph([layer, node("Identity", ["y"], ["z"])], tensors, ["x"])
    del layer.output[:]
    assert [found.reason for found in audit_model(make_model(graph)).layers] == ([reason] if reason else [])


@pytest.mark.filterwarnings("ignore::numpy.exceptions.ComplexWarning")
@given(st.lists(st.tuples(st.integers(0, len(CONTENT) - 1), st.integers(0, 255)), min_size=1, max_size=4))
@settings(max_examples=400, deadline=None)
def test_flipped_bytes(tmp_path_factory, flips):
    content = bytearray(CONTENT)
    for place, byte in flips:
        content[place] = byte
    path = tmp_path_factory.getbasetemp() / "flipped.onnx"
    path.write_bytes(content)
    with contextlib.suppress(InputError):
        json.dumps(audit_model(path).to_json())


def test_external_data_outside_the_folder_is_not_read(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    path = folder / "model.onnx"
    onnx.save(valid_model(), str(path), save_as_external_data=True, location="weights.bin", size_threshold=0)
    outside = tmp_path / "weights.bin"
    (folder / "weights.bin").rename(outside)
    for location in ("../weights.bin", str(outside)):
        model = onnx.load(str(path), load_external_data=False)
        for tensor in model.graph.initializer:
            next(each for each in tensor.external_data if each.key == "location").value = location
        path.write_bytes(model.SerializeToString())
        refused(path)
    (folder / "link.bin").symlink_to(outside)
    for tensor in model.graph.initializer:
        next(each for each in tensor.external_data if each.key == "location").value = "link.bin"
    path.write_bytes(model.SerializeToString())
    refused(path)


def printed(path: Path) -> int:
    """What ``verify --json`` does; returns the number of layers."""
    result = audit_model(path)
    json.dumps(result.to_json(), allow_nan=False)
    return len(result.layers)


@pytest.mark.skipif(not FOREIGN, reason="this onnx package comes without its test models")
def test_all_models_in_the_onnx_package():
    assert len(FOREIGN) > 100
    assert all(load_model(path).graph.node for path in FOREIGN)
    assert sum(printed(path) for path in FOREIGN) > 50
