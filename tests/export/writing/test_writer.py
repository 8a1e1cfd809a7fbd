"""Exported graphs: names, a dynamic batch, folded batch norms, the pattern, and no trace of this machine."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import backends, nn

from export.audit import audit_model, load_model, read_metadata
from export.writing import export_model, save_model
from export.writing.naming import INPUT
from sparsegpt_core.errors import InputError, ModelError
from sparsegpt_core.zoo import ModelShape, build_model
from tests.support.exports import METADATA, Echo, Undecided, prepared
from tests.support.networks import Mixer
from tests.support.paths import ROOT
from tests.support.precision import restored_precision


def layer_names(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]


@pytest.fixture(scope="module")
def mixer():
    model = prepared(Mixer())
    return model, (4, 8, 8), export_model(model, (4, 8, 8), METADATA)


@pytest.fixture(scope="module", params=["simple_cnn", "torchvision:resnet18", "mixer"])
def exported(request):
    if request.param == "mixer":
        return request.getfixturevalue("mixer")
    shape = ModelShape((1, 8, 8) if request.param == "simple_cnn" else (3, 32, 32), 10)
    model = prepared(build_model(request.param, shape))
    return model, shape.image, export_model(model, shape.image, METADATA)


def test_graph_is_valid_and_records_its_metadata(exported, tmp_path):
    _, image, proto = exported
    path = tmp_path / "model.onnx"
    save_model(proto, path)
    onnx.checker.check_model(str(path), full_check=True)
    proto = load_model(path)
    assert ([each.name for each in proto.graph.input], [each.name for each in proto.graph.output]) == (
        [INPUT],
        ["logits"],
    )
    dimensions = proto.graph.input[0].type.tensor_type.shape.dim
    assert dimensions[0].dim_param
    assert tuple(each.dim_value for each in dimensions[1:]) == image
    assert read_metadata(proto) == METADATA
    assert len({node.name for node in proto.graph.node}) == len(proto.graph.node)


def test_layers_have_the_names_of_their_modules(exported):
    model, _, proto = exported
    names = [layer.name for layer in audit_model(proto).layers]
    assert sorted(names) == sorted(layer_names(model) + ["shared#2"] * isinstance(model, Mixer))


@pytest.mark.parametrize(
    ("outputs", "names"),
    [
        (lambda maps: maps.mean((2, 3)), ["logits"]),
        (lambda maps: (maps.mean((2, 3)),), ["logits"]),
        (lambda maps: maps, ["output"]),
        (lambda maps: {"scores": maps}, ["scores"]),
        (lambda maps: {"aux": None, "out": maps}, ["out"]),
        (lambda maps: (None, maps), ["output"]),
        (lambda maps: (maps, {"p3": maps + 1}), ["output_0", "output_1_p3"]),
    ],
)
def test_outputs_have_their_own_names(outputs, names):
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, images):
            return outputs(self.conv(images))

    assert [value.name for value in export_model(Network(), (3, 8, 8)).graph.output] == names


def test_a_network_that_keeps_its_first_batch_size_is_refused():
    """As a head of Ultralytics that keeps its grid of anchors: the tracer fixes the batch without a word."""

    class Grid(nn.Module):
        shape = None

        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, images):
            if self.shape != images.shape:
                self.grid, self.shape = torch.ones_like(images[:, :1]), images.shape
            return self.conv(images) + self.grid

    with pytest.raises(ModelError, match=r"batch size of its first call: images has shape \[2,3,8,8\]") as caught:
        export_model(Grid(), (3, 8, 8))
    assert "docs/detectors.md" in caught.value.hint


@pytest.mark.parametrize(
    ("convert", "name"), [(lambda y: None, "None"), (lambda y: {"y": y, "n": 3, "s": "x"}, "int, str")]
)
def test_outputs_that_are_no_tensors(convert, name):
    class Odd(nn.Conv2d):
        def forward(self, images):
            return convert(super().forward(images))

    with pytest.raises(ModelError, match=f"the model returns {name}, not only tensors"):
        export_model(Odd(3, 4, 1), (3, 8, 8))


def test_random_outputs():
    class Dropping(nn.Conv2d):
        def forward(self, images):
            return nn.functional.dropout(super().forward(images), 0.5, training=True)

    with pytest.raises(ModelError, match="outputs change from call to call"):
        export_model(Dropping(3, 4, 1), (3, 8, 8))


@pytest.mark.parametrize("batch", [1, 5])
def test_any_batch_computes_what_pytorch_does(exported, batch):
    model, image, proto = exported
    images = torch.randn(batch, *image, generator=torch.Generator().manual_seed(batch))
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    (actual,) = session.run(None, {INPUT: images.numpy()})
    with torch.inference_mode():
        expected = model(images).numpy()
    np.testing.assert_allclose(actual, expected, atol=1e-4 * np.abs(expected).max())


def test_batch_norm_is_folded_and_the_pattern_kept(exported):
    _, image, proto = exported
    assert not any(node.op_type == "BatchNormalization" for node in proto.graph.node)
    audit = audit_model(proto)
    assert (audit.pattern, audit.layers[0].is_sparse) == ("2:4", image[0] == 4)
    assert audit.sparse_layers == len(audit.layers) - (image[0] != 4)


def test_nothing_of_this_machine_is_in_the_file(exported):
    content = exported[2].SerializeToString()
    for trace in (str(ROOT), str(Path(torch.__file__).parent.parent), "stack_trace", "pkg.torch", "site-packages"):
        assert trace.encode() not in content


def test_same_model_same_bytes_and_flags_as_they_were(mixer, tmp_path):
    model = copy.deepcopy(mixer[0]).train()
    model.norm.eval()
    model.mlp.training = False
    flags = [module.training for module in model.modules()]
    save_model(export_model(model, mixer[1], METADATA), tmp_path / "again.onnx")
    save_model(mixer[2], tmp_path / "once.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "once.onnx").read_bytes()
    assert [module.training for module in model.modules()] == flags


def test_models_that_cannot_be_exported(capfd):
    model = Undecided().train()
    with pytest.raises(ModelError, match=r"^torch.onnx cannot export the model: .*data-dependent") as caught:
        export_model(model, (1, 4, 4))
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert caught.value.hint
    assert model.training
    with pytest.raises(ModelError, match="opset 16 is too old"):
        export_model(Echo(), (1, 4, 4), opset=16)
    assert capfd.readouterr() == ("", "")


def test_a_place_that_cannot_be_written(mixer, tmp_path):
    with pytest.raises(InputError, match="directory"):
        save_model(mixer[2], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_sets_fp32_precision_can_export():
    """torch.export reads the older flags, and PyTorch refuses to read those that contradict the newer ones."""
    with restored_precision():
        backends.cudnn.conv.fp32_precision = "ieee"
        before = backends.cudnn.conv.fp32_precision, backends.cudnn.rnn.fp32_precision
        export_model(nn.Sequential(nn.Conv2d(1, 2, 3)), (1, 8, 8))
        assert (backends.cudnn.conv.fp32_precision, backends.cudnn.rnn.fp32_precision) == before
