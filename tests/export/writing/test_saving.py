"""Files of any size: weights in a second file, both files or neither, and paths that stay in the folder."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from export.audit import audit_model, load_model
from export.writing import save_model, staged_model
from sparsegpt_core.errors import CheckFailedError, InputError

SMALL = 0  # bytes of weights that make a model "large"


def model(scale: float) -> onnx.ModelProto:
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[N,64] input) => (float[N,64] logits) '
        "{logits = MatMul(input, weight)}"
    )
    weight = np.tile(np.array([[scale], [0], [0], [scale]], dtype=np.float32), (16, 64))
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, "weight"))
    return proto


def run(path: Path) -> float:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return float(session.run(None, {"input": np.ones((1, 64), dtype=np.float32)})[0][0, 0])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_large_weights_are_in_a_second_file(tmp_path):
    proto, path = model(1), tmp_path / "new" / "model.onnx"
    before = proto.SerializeToString()
    save_model(proto, path, limit=SMALL)
    assert names(path.parent) == ["model.onnx", "model.onnx.data"]
    assert proto.SerializeToString() == before
    onnx.checker.check_model(str(path), full_check=True)
    (weight,) = onnx.load(str(path), load_external_data=False).graph.initializer
    assert {entry.key: entry.value for entry in weight.external_data}["location"] == "model.onnx.data"
    assert run(path) == 32
    assert audit_model(path).sparse_layers == 1
    assert load_model(path).graph.initializer[0].raw_data == proto.graph.initializer[0].raw_data
    assert path.stat().st_mode == path.with_name("model.onnx.data").stat().st_mode
    moved = path.parent.rename(tmp_path / "moved") / "model.onnx"
    assert run(moved) == 32


@pytest.mark.parametrize(("limits", "left"), [((SMALL, SMALL), 2), ((SMALL, 1 << 20), 1), ((1 << 20, SMALL), 2)])
def test_a_new_model_replaces_all_of_the_old_one(limits, left, tmp_path):
    for scale, limit in enumerate(limits, start=1):
        save_model(model(scale), tmp_path / "model.onnx", limit=limit)
    assert run(tmp_path / "model.onnx") == 64
    assert len(names(tmp_path)) == left


@pytest.mark.parametrize("limit", [SMALL, 1 << 20])
def test_a_model_that_fails_its_checks_leaves_the_old_one(limit, tmp_path):
    path = tmp_path / "model.onnx"
    save_model(model(1), path, limit=limit)
    files = names(tmp_path)

    def check(staged: Path) -> None:
        assert (staged.name, run(staged)) == (path.name, 64)
        raise CheckFailedError("no")

    with pytest.raises(CheckFailedError), staged_model(model(2), path, limit=limit) as staged:
        check(staged)
    assert (names(tmp_path), run(path)) == (files, 32)


def test_an_old_model_never_reads_new_weights(tmp_path, monkeypatch):
    path = tmp_path / "model.onnx"
    save_model(model(1), path, limit=SMALL)
    renamed, replace = [], Path.replace

    def killed_after_one(self, target):
        if renamed:
            raise OSError("killed")
        renamed.append(target)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", killed_after_one)
    with pytest.raises(InputError, match="cannot write"):
        save_model(model(2), path, limit=SMALL)
    assert names(tmp_path) == ["model.onnx.data"]


def test_places_that_cannot_be_written(tmp_path):
    with pytest.raises(InputError, match="directory"):
        save_model(model(1), tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write"):
        save_model(model(1), tmp_path / "file" / "model.onnx")
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("location", ["../model.onnx.data", "/model.onnx.data"])
def test_weights_outside_the_folder_are_not_read(location, tmp_path):
    path = tmp_path / "folder" / "model.onnx"
    save_model(model(1), path, limit=SMALL)
    path.with_name("model.onnx.data").rename(tmp_path / "model.onnx.data")
    proto = onnx.load(str(path), load_external_data=False)
    location = str(tmp_path / "model.onnx.data") if location.startswith("/") else location
    for entry in proto.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = location
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(InputError):
        load_model(path)
