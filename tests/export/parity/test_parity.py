"""The comparison of a file with PyTorch: the differences, networks of any shape, and the node where an error begins."""

import json
import re

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from onnx.helper import make_node as node
from torch import nn

from export.exporter import Exporter
from export.parity import Parity, Reference, check_parity
from export.parity.fault_finder import find_fault, torch_values
from export.precision import to_fp16
from export.writing import export_model, save_model
from sparsegpt_core.errors import CheckFailedError, ModelError, NumericsError
from sparsegpt_core.patterns import NM
from tests.support.exports import IMAGES, METADATA, prepared
from tests.support.graphs import edited, make_graph, make_model
from tests.support.networks import Mixer
from tests.support.precision import PrecisionProbe


class Total(nn.Module):
    """One number for an image."""

    def forward(self, x):
        return x.sum((1, 2, 3))


class Scenes(nn.Module):
    """Two inputs; a map of classes and a vector, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 1)
        self.second = nn.Conv2d(1, 4, 1)

    def forward(self, image, depth):
        mixed = (self.first(image) + self.second(depth)).relu()
        return {"out": mixed, "levels": mixed.mean((1, 2, 3))}


@pytest.fixture(scope="module")
def mixer():
    model = prepared(Mixer())
    return model, export_model(model, (4, 8, 8), METADATA)


@pytest.mark.parametrize(("convert", "tolerance"), [(lambda proto: proto, 1e-5), (to_fp16, 1e-2)], ids=["fp32", "fp16"])
def test_a_good_file(mixer, tmp_path, convert, tolerance):
    model, proto = mixer
    save_model(convert(proto), tmp_path / "model.onnx")
    parity = check_parity(tmp_path / "model.onnx", model, IMAGES, tolerance)
    assert 0 <= parity.mean_abs <= parity.max_abs < tolerance * 10
    assert (parity.samples, parity.top1_agreement, parity.outputs_vary) == (16, 100, True)
    assert parity == Parity(**json.loads(json.dumps(parity.to_json())))


def test_differences_match_their_definitions(mixer, tmp_path):
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


def test_inputs_and_outputs_of_any_number_and_shape(tmp_path):
    model = Scenes().eval()
    inputs = (torch.rand(3, 2, 5, 5), torch.rand(3, 1, 5, 5))
    proto = export_model(model, inputs)
    save_model(to_fp16(proto, "fp16"), tmp_path / "model.onnx")
    parity = check_parity(tmp_path / "model.onnx", model, inputs, 1e-2)
    assert parity.samples == 3
    assert 90 < parity.top1_agreement <= 100  # of pixels
    assert 0 < parity.relative < 2e-3
    save_model(edited(proto, "second.weight", lambda weight: weight.put(1, 9)), tmp_path / "model.onnx")
    with pytest.raises(CheckFailedError, match="begins at second,"):
        check_parity(tmp_path / "model.onnx", model, inputs)


class Boxes(nn.Module):
    """Coordinates up to 10,000, three scores, and a score of nearly zero, in one output (N, 6, positions)."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(4, 6, 1)
        self.head.weight.data[:2] *= 1e4
        self.head.weight.data[5] *= 1e-9
        self.head.bias.data[5] = 0

    def forward(self, images):
        return self.head(images).flatten(2)


@pytest.mark.parametrize("fault", [1.0, 0.2])
def test_errors_of_scores_are_not_hidden_by_coordinates(tmp_path, fault):
    """Against NumPy; the whole output, which is judged, has an error below one in a thousand."""
    model = prepared(Boxes())
    exporter = Exporter(model, IMAGES, METADATA, NM(2, 4), ())
    assert not exporter.write(tmp_path / "good.onnx").warnings
    scores = edited(exporter._graph(), "head.weight", lambda weight: np.multiply(weight[2:5], fault, out=weight[2:5]))
    faulty = edited(scores, "head.bias", lambda bias: np.multiply(bias[2:5], fault, out=bias[2:5]))
    exporter._graph = lambda: faulty
    file = exporter.write(tmp_path / "model.onnx")
    with torch.inference_mode():
        expected = model(IMAGES).double().numpy()
    wrong = expected * np.array([1, 1, fault, fault, fault, 1])[:, None]
    norms = [np.linalg.norm(each, axis=(0, 2)) for each in (expected - wrong, expected)]
    found = file.parity.channel_errors["output"]
    assert found.channels == 6
    assert found.median == pytest.approx(np.median(norms[0] / norms[1]), abs=1e-5)
    assert found.worst == pytest.approx((norms[0] / norms[1]).max(), abs=1e-4)
    assert file.parity.relative < 1e-3
    assert json.loads(json.dumps(file.parity.to_json()))["channel_errors"]["output"]["median"] == found.median
    hidden = "model.onnx: half of the channels of output differ from PyTorch by more than 0.4 of themselves"
    assert [text.startswith(hidden) for text in file.warnings] == ([True] if fault < 1 else [])


def test_a_channel_of_nearly_zero_does_not_fail_a_good_file(tmp_path):
    model = prepared(Boxes())
    exporter = Exporter(model, IMAGES, METADATA, NM(2, 4), ())
    larger = edited(exporter._graph(), "head.weight", lambda weight: np.multiply(weight[5], 9, out=weight[5]))
    exporter._graph = lambda: larger
    file = exporter.write(tmp_path / "model.onnx")
    assert file.parity.channel_errors["output"].worst == pytest.approx(8, rel=1e-3)
    assert file.parity.channel_errors["output"].worst_channel == 5
    assert file.warnings == ()


def test_outputs_without_classes(tmp_path):
    graph = make_graph([node("ReduceSum", ["x", "axes"], ["y"], keepdims=0)], {"axes": np.array([1, 2, 3])}, ["x"])
    onnx.save(make_model(graph), tmp_path / "model.onnx")
    parity = check_parity(tmp_path / "model.onnx", Total(), IMAGES)
    assert (parity.top1_agreement, parity.samples) == (None, 16)


@pytest.fixture(scope="module")
def values(mixer):
    return torch_values(mixer[0], [IMAGES])


def find(proto, mixer, values, path, tolerance):
    save_model(proto, path)
    with torch.inference_mode():
        outputs = [mixer[0](IMAGES).numpy()]
    return find_fault(path, values, [IMAGES.numpy()], outputs, tolerance)


@pytest.mark.parametrize("convert", [lambda proto: proto, to_fp16], ids=["fp32", "fp16"])
@pytest.mark.parametrize("layer", ["conv", "mlp.0", "shared", "head"])
def test_the_layer_with_a_wrong_weight_is_named(mixer, values, tmp_path, convert, layer):
    weight = next(each.input[1] for each in mixer[1].graph.node if each.name == layer)
    proto = convert(edited(mixer[1], weight, lambda value: value.put(0, 3)))
    fault = find(proto, mixer, values, tmp_path / "model.onnx", 0.02)
    assert fault.node == layer
    assert 0.02 < fault.error < 100


def test_the_layer_with_a_wrong_bias_is_named(mixer, values, tmp_path):
    """A linear layer of tokens is a MatMul and an Add, of which PyTorch knows the sum alone."""
    proto = edited(mixer[1], "mlp.2.bias", lambda value: value.put(0, 3))
    assert find(proto, mixer, values, tmp_path / "model.onnx", 0.02).node == "mlp.2"


def test_errors_of_rounding_are_found_where_they_are_largest(mixer, values, tmp_path):
    path = tmp_path / "model.onnx"
    fault = find(to_fp16(mixer[1]), mixer, values, path, 1)
    assert 1e-5 < fault.error < 2e-3
    assert fault.largest == pytest.approx(fault.expected, rel=1e-2)
    assert find(to_fp16(mixer[1]), mixer, values, path, fault.error * 0.999) == fault


def test_a_node_that_overflows_is_named(tmp_path):
    nodes = [
        node("Mul", ["x", "one"], ["a"], name="fine"),
        node("Mul", ["a", "loud"], ["b"], name="loud"),
        node("Mul", ["b", "quiet"], ["y"], name="quiet"),
    ]
    tensors = {"one": np.float32(1), "loud": np.float32(6e4), "quiet": np.float32(1e-4)}
    model = make_model(make_graph(nodes, tensors, ["x"]))
    for value in (model.graph.input[0], model.graph.output[0]):
        value.CopyFrom(helper.make_tensor_value_info(value.name, TensorProto.FLOAT, ["n"]))
    onnx.save(to_fp16(model, "fp16"), tmp_path / "model.onnx")
    images = np.float32([1, 2])
    right = {"a": images, "b": images * 6e4}
    fault = find_fault(tmp_path / "model.onnx", right, [images], [images * 6], 0.02)
    assert (fault.node, fault.error, fault.largest, fault.expected) == ("loud", np.inf, np.inf, 1.2e5)


def test_a_wrong_scale_of_int8_is_named(tmp_path):
    """The second of two layers has a scale of twice its size."""
    rng = np.random.default_rng(0)
    kernels = rng.normal(size=(2, 4, 4, 1, 1)).astype("f")
    scales = np.abs(kernels).max((1, 2, 3, 4)) / 127
    integers = np.rint(kernels / scales[:, None, None, None, None]).astype(np.int8)
    nodes, tensors = [], {"z": np.int8(0)}
    for index, (source, factor) in enumerate((("x", 1), ("y0", 2))):
        tensors |= {f"q{index}": integers[index], f"s{index}": np.float32(scales[index] * factor)}
        nodes.append(node("DequantizeLinear", [f"q{index}", f"s{index}", "z"], [f"w{index}"], name=f"dq{index}"))
        nodes.append(node("Conv", [source, f"w{index}"], [f"y{index}"], name=f"conv{index}"))
    model = make_model(make_graph(nodes, tensors, ["x"]))
    for value in (model.graph.input[0], model.graph.output[0]):
        value.CopyFrom(helper.make_tensor_value_info(value.name, TensorProto.FLOAT, ["n", 4, 3, 3]))
    onnx.save(model, tmp_path / "model.onnx")
    images = rng.normal(size=(2, 4, 3, 3)).astype("f")
    first = np.einsum("kc,nchw->nkhw", kernels[0, :, :, 0, 0], images)
    second = np.einsum("kc,nchw->nkhw", kernels[1, :, :, 0, 0], first)
    fault = find_fault(tmp_path / "model.onnx", {"y0": first}, [images], [second], 0.05)
    assert fault.node == "conv1"
    assert fault.error == pytest.approx(1, rel=0.05)


def test_the_message_of_a_file_that_is_wrong(mixer, tmp_path):
    path = tmp_path / "model.onnx"
    save_model(edited(mixer[1], "shared.weight", lambda weight: weight.put(0, 3)), path)
    with pytest.raises(CheckFailedError) as caught:
        check_parity(path, mixer[0], IMAGES)
    assert re.match(
        r"model\.onnx differs from PyTorch by \S+ of its outputs \(allowed: 0\.001\); the error begins at shared, "
        r"whose output has a relative error of \S+: values up to \S+, expected up to \S+$",
        str(caught.value),
    )


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_outputs_that_are_not_finite(mixer, tmp_path, value):
    model, proto = mixer
    save_model(edited(proto, "head.bias", lambda bias: bias.put(0, value)), tmp_path / "model.onnx")
    with pytest.raises(NumericsError, match=r"^model\.onnx computes NaN or infinity .* begins at head,") as caught:
        check_parity(tmp_path / "model.onnx", model, IMAGES)
    assert "fp32" in caught.value.hint
    with pytest.raises(NumericsError, match="PyTorch's outputs are not finite"):
        check_parity(tmp_path / "model.onnx", model, IMAGES * value)


def test_the_node_may_be_unknown(mixer, tmp_path, monkeypatch):
    def fails(*_):
        raise RuntimeError("no trace\nat all")

    monkeypatch.setattr("export.parity.parity.torch_values", fails)
    save_model(edited(mixer[1], "conv.weight", lambda value: value.put(0, 3)), tmp_path / "model.onnx")
    with pytest.raises(CheckFailedError, match=r"; the node where the error begins is not known: no trace$"):
        check_parity(tmp_path / "model.onnx", mixer[0], IMAGES)


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
        assert file.name in str(caught.value)
        assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_pytorch_computes_without_tf32(tmp_path):
    model = PrecisionProbe().eval()
    save_model(export_model(model.layer, (4,)), tmp_path / "model.onnx")
    model.seen.clear()
    check_parity(tmp_path / "model.onnx", model, torch.ones(2, 4))
    assert model.seen == [("highest", False)]


def test_the_values_of_the_fault_finder_are_computed_without_tf32(monkeypatch):
    seen = []
    run = torch.fx.Interpreter.run

    def probed(self, *inputs):
        seen.append((torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32))
        return run(self, *inputs)

    monkeypatch.setattr("export.parity.fault_finder._Recorder.run", probed)
    assert torch_values(nn.Linear(4, 3).eval(), [torch.ones(2, 4)])
    assert seen == [("highest", False)]


@pytest.mark.parametrize("bias", [0.0, 0.5])
def test_constant_outputs_prove_nothing(bias, tmp_path):
    """torchvision's ViT starts with a head of zeros."""
    model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)).eval()
    nn.init.zeros_(model[3].weight)
    nn.init.constant_(model[3].bias, bias)
    file = Exporter(model, IMAGES, {}, NM(2, 4), []).write(tmp_path / "model.onnx")
    assert file.parity.outputs_vary is file.parity.to_json()["outputs_vary"] is False
    assert len(file.warnings) == 1
    assert "the comparison proves nothing" in file.warnings[0]


def test_constant_images_give_constant_outputs(tmp_path):
    model = nn.Conv2d(4, 8, 3).eval()
    file = Exporter(model, torch.ones(2, 4, 8, 8), {}, NM(2, 4), []).write(tmp_path / "model.onnx")
    assert file.parity.outputs_vary
    assert file.warnings == ()


@pytest.mark.parametrize(
    ("factor", "samples"), [(1, 4), (1 + 0.9 / 80, 4), (1 + 1.1 / 80, 16), (1 + 0.9 / 10, 16)], ids=str
)
def test_all_samples_are_compared_where_a_few_are_near_the_limit(tmp_path, factor, samples):
    """The output of one layer is wrong by a factor: its relative difference is the factor less 1."""
    model = nn.Conv2d(4, 6, 1, bias=False).eval()
    wrong = edited(export_model(model, (4, 8, 8)), "weight", lambda value: np.multiply(value, factor, out=value))
    save_model(wrong, tmp_path / "model.onnx")
    parity = Reference(model, IMAGES).check(tmp_path / "model.onnx", tolerance=1, usual=1 / 10)
    assert parity.samples == samples
    assert parity.relative == pytest.approx(factor - 1, abs=1e-6)


class Offset(nn.Module):
    """Logits that ``offset`` is added to."""

    def __init__(self, offset) -> None:
        super().__init__()
        self.register_buffer("offset", torch.tensor(offset))

    def forward(self, x):
        return x.flatten(1)[:, :2] + self.offset


def test_all_samples_are_compared_where_a_class_differs(tmp_path):
    """A change far below the limit turns the class of one of the first four samples."""
    images = IMAGES.clone()
    images[0].flatten()[:2] = torch.tensor([1.0, 1.0001])
    save_model(export_model(Offset([1e-3, 0.0]), (4, 8, 8)), tmp_path / "model.onnx")
    reference = Reference(Offset([0.0, 0.0]), images)
    assert reference.check(tmp_path / "model.onnx", tolerance=1, usual=1).samples == 16
    assert reference.check(tmp_path / "model.onnx", tolerance=1).top1_agreement == pytest.approx(100 * 15 / 16)


def test_a_file_that_is_wrong_is_compared_on_all_samples(mixer, tmp_path):
    path = tmp_path / "model.onnx"
    save_model(edited(mixer[1], "shared.weight", lambda weight: weight.put(0, 3)), path)
    with pytest.raises(CheckFailedError) as all_samples:
        check_parity(path, mixer[0], IMAGES)
    with pytest.raises(CheckFailedError) as few_first:
        Reference(mixer[0], IMAGES).check(path, usual=1e-3)
    assert str(few_first.value) == str(all_samples.value)


def test_the_outputs_on_few_samples_are_computed_once(tmp_path):
    model = PrecisionProbe().eval()
    save_model(export_model(model.layer, (4,)), tmp_path / "model.onnx")
    reference = Reference(model, torch.randn(8, 4))
    model.seen.clear()
    for _ in range(3):
        assert reference.check(tmp_path / "model.onnx", usual=1e-3).samples == 4
    assert len(model.seen) == 1
