"""FP16 graphs, and the comparison of a file with PyTorch."""

import dataclasses
import json

import numpy as np
import onnx
import pytest
import torch
from google.protobuf.message import EncodeError
from onnx import TensorProto, numpy_helper
from torch import nn

from export.audit import audit_model
from export.metadata import read_metadata
from export.onnx_writer import export_model, save_model
from export.parity import Parity, check_parity
from export.precision import check_fp16_range, to_fp16
from sparsegpt_core.errors import CheckFailedError, ModelError, NumericsError
from test_onnx_writer import METADATA, Mixer, prepared

IMAGES = torch.randn(16, 4, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def mixer():
    model = prepared(Mixer())
    return model, export_model(model, (4, 8, 8), METADATA)


def edited(proto: onnx.ModelProto, name: str, edit) -> onnx.ModelProto:
    """A copy with one initializer changed in place by ``edit``."""
    changed = onnx.ModelProto()
    changed.CopyFrom(proto)
    tensor = next(tensor for tensor in changed.graph.initializer if tensor.name == name)
    value = numpy_helper.to_array(tensor).copy()
    edit(value)
    tensor.CopyFrom(numpy_helper.from_array(value, name))
    return changed


def weights(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    return {name: value for name, value in tensors.items() if value.dtype != np.int64}


def test_fp16_keeps_names_interface_and_zeros(mixer):
    _, proto = mixer
    before = proto.SerializeToString()
    half = to_fp16(proto)
    assert proto.SerializeToString() == before
    onnx.checker.check_model(half, full_check=True)
    assert {each.type.tensor_type.elem_type for each in (*half.graph.input, *half.graph.output)} == {TensorProto.FLOAT}
    assert weights(half).keys() == weights(proto).keys()
    for name, value in weights(half).items():
        assert value.dtype == np.float16
        np.testing.assert_array_equal(value == 0, weights(proto)[name] == 0)
        np.testing.assert_allclose(value, weights(proto)[name], rtol=2**-11, atol=2**-24)
    assert read_metadata(half) == METADATA
    assert [dataclasses.replace(layer, dtype="") for layer in audit_model(half).layers] == [
        dataclasses.replace(layer, dtype="") for layer in audit_model(proto).layers
    ]


def test_fp16_of_the_smallest_numbers(mixer):
    def tiny(value):
        value[:] = [0, 1e-30, -1e-30, 3e-8, 65504, -65504, -0.0, 1]

    half = weights(to_fp16(edited(mixer[1], "mlp.2.bias", tiny)))["mlp.2.bias"]
    least = np.float16(2**-24)
    np.testing.assert_array_equal(half, np.float16([0, least, -least, least, 65504, -65504, 0, 1]))


@pytest.mark.parametrize("value", [7e4, -7e4, np.inf, np.nan])
def test_weights_that_fp16_cannot_hold(mixer, value):
    loud = edited(mixer[1], "head.bias", lambda bias: bias.put(2, value))
    with pytest.raises(NumericsError, match=r"^head\.bias holds .*65504") as caught:
        to_fp16(loud)
    assert "fp32" in caught.value.hint


@pytest.mark.parametrize(("convert", "tolerance"), [(lambda proto: proto, 1e-5), (to_fp16, 1e-2)], ids=["fp32", "fp16"])
def test_parity_of_a_good_file(mixer, tmp_path, convert, tolerance):
    model, proto = mixer
    save_model(convert(proto), tmp_path / "model.onnx")
    parity = check_parity(tmp_path / "model.onnx", model, IMAGES, tolerance)
    assert 0 <= parity.mean_abs <= parity.max_abs < tolerance * 10
    assert (parity.samples, parity.top1_agreement) == (16, 100)
    assert parity == Parity(**json.loads(json.dumps(parity.to_json())))


def test_parity_figures_are_what_they_say(mixer, tmp_path):
    model, proto = mixer
    offset = np.float32([0, 0.5, 0, 0, -1])
    shifted = edited(proto, "head.bias", lambda bias: np.add(bias, offset, out=bias))
    save_model(shifted, tmp_path / "model.onnx")
    parity = check_parity(tmp_path / "model.onnx", model, IMAGES, tolerance=100)
    with torch.inference_mode():
        logits = model(IMAGES).numpy()
    agreement = 100 * np.mean(logits.argmax(1) == (logits + offset).argmax(1))
    assert parity.max_abs == pytest.approx(1, rel=1e-4)
    assert parity.mean_abs == pytest.approx(0.3, rel=1e-4)
    assert parity.relative == pytest.approx(4 * np.linalg.norm(offset) / np.linalg.norm(logits), rel=1e-4)
    assert parity.top1_agreement == pytest.approx(agreement)


def test_one_wrong_weight_fails(mixer, tmp_path):
    model, proto = mixer
    save_model(edited(proto, "shared.weight", lambda weight: weight.put(0, 3)), tmp_path / "model.onnx")
    with pytest.raises(CheckFailedError, match=r"^model\.onnx differs from PyTorch by .* \(allowed: 0\.001\)"):
        check_parity(tmp_path / "model.onnx", model, IMAGES)


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_outputs_that_are_not_finite(mixer, tmp_path, value):
    model, proto = mixer
    save_model(edited(proto, "head.bias", lambda bias: bias.put(0, value)), tmp_path / "model.onnx")
    with pytest.raises(NumericsError, match=r"^model\.onnx gives NaN or infinity.*overflows") as caught:
        check_parity(tmp_path / "model.onnx", model, IMAGES)
    assert "fp32" in caught.value.hint
    with pytest.raises(NumericsError, match="PyTorch model's outputs"):
        check_parity(tmp_path / "model.onnx", model, IMAGES * value)


def test_files_of_another_model(mixer, tmp_path, capfd):
    path = tmp_path / "model.onnx"
    save_model(mixer[1], path)
    text = tmp_path / "text.onnx"
    text.write_text("no model")
    wider = nn.Sequential(nn.Flatten(), nn.Linear(4 * 8 * 8, 7))
    other_images = nn.Sequential(nn.Flatten(), nn.Linear(16, 5))
    for file, model, images in (
        (text, mixer[0], IMAGES),
        (tmp_path / "missing.onnx", mixer[0], IMAGES),
        (path, wider, IMAGES),
        (path, other_images, torch.zeros(2, 1, 4, 4)),
    ):
        with pytest.raises(ModelError) as caught:
            check_parity(file, model, images)
        assert str(file) in str(caught.value)
        assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_activations_beyond_fp16_name_the_module():
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Conv2d(2, 2, 1)).eval()
    images = torch.ones(1, 1, 2, 2)
    check_fp16_range(model, images)
    with torch.no_grad():
        model[0].weight.fill_(7e4)
    with pytest.raises(NumericsError, match=r"^0 puts out"):
        check_fp16_range(model, images)


def test_a_model_beyond_two_gibibytes_is_refused(tmp_path, monkeypatch):
    def too_large(*_):
        raise EncodeError("Failed to serialize proto")

    monkeypatch.setattr(onnx, "save", too_large)
    with pytest.raises(ModelError, match="2 GiB"):
        save_model(onnx.ModelProto(), tmp_path / "large.onnx")
    assert list(tmp_path.iterdir()) == []
