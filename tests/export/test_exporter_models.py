"""Users' networks: several inputs and outputs, any size, shared weights, segmentation, old opsets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet18
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.models.segmentation.fcn import FCN, FCNHead

from export.audit import audit_model
from export.exporter import Exporter
from export.writing import export_model
from sparsegpt_core.errors import ModelError
from sparsegpt_core.patterns import NM
from tests.support.exports import Shared, Undecided, exported_with_weights_beside, prepared
from tests.support.paths import ROOT

SHARED_LAYERS = ["block", "block#2", "first", "second"]


class Masked(nn.Module):
    """Two images and a vector in; a dictionary with a list in it out; operators that opset 18 changed."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1, padding_mode="reflect"), nn.BatchNorm2d(8), nn.ReLU())
        self.mask = nn.Conv2d(4, 8, 1)
        self.up = nn.Upsample(scale_factor=2, mode="bilinear")

    def forward(self, image: Tensor, mask: Tensor, weights: Tensor) -> dict[str, Tensor | list[Tensor]]:
        x = self.image(image) + self.mask(mask)
        low, high = x.chunk(2, dim=1)
        return {"add": self.up(low), "image": image, "0": [high * weights, x.mean((2, 3))]}


class Fixed(nn.Module):
    """Its classifier fits one size of images."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.Flatten(), nn.Linear(4 * 64, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Detector(Undecided):
    """As detection models: the whole depends on values, the backbone does not."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Conv2d(1, 1, 1)


def example(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def assert_parity(model: nn.Module, proto: onnx.ModelProto, *inputs: Tensor) -> None:
    """Compare all outputs, flattened, with PyTorch's."""
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    feeds = {node.name: x.numpy() for node, x in zip(session.get_inputs(), inputs, strict=True)}
    with torch.inference_mode():
        expected = torch.utils._pytree.tree_leaves(model(*inputs))
    for actual, want in zip(session.run(None, feeds), expected, strict=True):
        np.testing.assert_allclose(actual, want.numpy(), atol=1e-5 * want.abs().max())


def names(values) -> list[str]:
    return [value.name for value in values]


def operators(proto: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in proto.graph.node]


@pytest.mark.parametrize("options", [{}, {"opset": 17, "dynamic_size": True, "fold_batch_norm": False}])
def test_several_inputs_and_outputs(options):
    model = prepared(Masked())
    proto = export_model(model, (example(1, 4, 8, 8), example(1, 4, 8, 8), example(4, 1, 1)), **options)
    onnx.checker.check_model(proto, full_check=True)
    assert names(proto.graph.input) == ["image", "mask", "weights"]
    assert names(proto.graph.output) == ["add", "image_1", "output_0_0", "output_0_1"]
    assert ("BatchNormalization" in operators(proto)) == (options.get("fold_batch_norm") is False)
    assert [layer.name for layer in audit_model(proto).layers if layer.is_sparse] == ["image.0", "mask"]
    assert (proto.opset_import[0].version, proto.ir_version) == ((17, 8) if options else (20, 9))
    size = (12, 20) if options else (8, 8)
    assert_parity(model, proto, example(3, 4, *size), example(3, 4, *size), example(4, 1, 1))


def test_shared_weights_are_written_once():
    model = prepared(Shared())
    proto = export_model(model, (4, 8, 8))
    assert [layer.name for layer in audit_model(proto).layers if layer.is_sparse] == SHARED_LAYERS
    assert sum(len(tensor.dims) == 4 for tensor in proto.graph.initializer) == 1
    assert sum(list(tensor.dims) == [4, 4] for tensor in proto.graph.initializer) == 1
    assert_parity(model, proto, example(3, 4, 8, 8))


def test_a_segmentation_network():
    layers = create_feature_extractor(resnet18(weights=None), {"layer3": "aux", "layer4": "out"})
    model = prepared(FCN(layers, FCNHead(512, 5), FCNHead(256, 5)))
    proto = export_model(model, (3, 64, 64), opset=17, dynamic_size=True)
    onnx.checker.check_model(proto, full_check=True)
    assert names(proto.graph.output) == ["out", "aux"]
    assert_parity(model, proto, example(1, 3, 96, 32))


def test_unsupported_networks_are_refused():
    export_model(Fixed().eval(), (4, 8, 8))
    with pytest.raises(ModelError, match="shapes cannot be multiplied") as caught:
        export_model(Fixed().eval(), (4, 8, 8), dynamic_size=True)
    assert "a fixed height and width" in caught.value.hint
    with pytest.raises(ModelError) as caught:
        export_model(Detector().eval(), (1, 8, 8))
    assert "docs/detectors.md" in caught.value.hint


SCRIPT = """
import sys
from pathlib import Path
from tests.support.exports import exported_with_weights_beside
exported_with_weights_beside(Path(sys.argv[1]))
"""


def test_another_process_writes_the_same_bytes(tmp_path):
    ours, theirs = tmp_path / "ours" / "model.onnx", tmp_path / "theirs" / "model.onnx"
    exported_with_weights_beside(ours)
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    subprocess.run([sys.executable, "-c", SCRIPT, str(theirs)], cwd=ROOT, env=environment, check=True)
    for suffix in ("", ".data"):
        content = Path(f"{ours}{suffix}").read_bytes()
        assert Path(f"{theirs}{suffix}").read_bytes() == content
        assert str(tmp_path).encode() not in content
        assert str(ROOT).encode() not in content


@pytest.mark.parametrize(("tiny", "warned"), [(3, False), (360, True)])
def test_weights_that_underflow_are_a_warning_only_where_they_are_many(tmp_path: Path, tiny: int, warned: bool) -> None:
    network = nn.Conv2d(4, 100, 1, bias=False).eval()
    with torch.no_grad():
        network.weight.view(-1)[:tiny] = 1e-9
    file = Exporter(network, torch.randn(2, 4, 8, 8), {}, NM(2, 4), []).write(tmp_path / "conv.fp16.onnx", "fp16")
    (line,) = [each for each in (file.warnings if warned else file.notes) if "underflow" in each]
    assert line.startswith(
        f"conv.fp16.onnx: {tiny} weights underflow FP16; they were set to ±6e-8 so that they stay non-zero"
    )
    assert line.endswith(". They are 90 % of weight: compare the FP16 accuracy") is warned
    assert not [each for each in (file.notes if warned else file.warnings) if "underflow" in each]
