"""Which layers are heads, and which weights only functions use."""

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torch.nn.utils import parametrizations
from torchvision.models import detection

from export.audit import audit_model, write_metadata
from export.writing import export_model
from sparsegpt_core.errors import ModelError
from sparsegpt_core.network import plan_layers
from sparsegpt_core.reasons import Reason
from sparsegpt_core.settings import PruneSettings
from tests.support.networks import AttentionNet

UNTRAINED = {"weights": None, "weights_backbone": None}


class Anchors(nn.Module):
    """A detector's scores and offsets for all anchors."""

    def __init__(self, detector):
        super().__init__()
        self.backbone, self.head = detector.backbone, detector.head

    def forward(self, images):
        return self.head(list(self.backbone(images).values()))


class UNet(nn.Module):
    """Two scales, a skip connection, and a map of classes."""

    def __init__(self):
        super().__init__()
        self.down, self.deep = nn.Conv2d(4, 8, 3, padding=1), nn.Conv2d(8, 16, 3, padding=1, stride=2)
        self.up, self.join = nn.ConvTranspose2d(16, 8, 2, stride=2), nn.Conv2d(16, 8, 3, padding=1)
        self.head = nn.Conv2d(8, 3, 1)

    def forward(self, x):
        fine = self.down(x).relu()
        return self.head(self.join(torch.cat([fine, self.up(self.deep(fine).relu())], 1)).relu())


class TwoHeads(nn.Module):
    """Classes, and boxes that a frozen convolution decodes as YOLO's DFL does. A residual block is no head."""

    def __init__(self):
        super().__init__()
        self.stem, self.block = nn.Conv2d(4, 8, 1), nn.Conv2d(8, 8, 1)
        self.classes, self.boxes = nn.Linear(8, 5), nn.Conv2d(8, 16, 1)
        self.decode = nn.Conv2d(16, 1, 1, bias=False).requires_grad_(False)

    def forward(self, x):
        x = self.stem(x)
        x = x + self.block(x).relu_()
        decoded = torch.zeros(len(x), 1, *x.shape[2:])
        decoded[:, :1] = self.decode(self.boxes(x).softmax(1))
        return {"classes": self.classes(x.mean((2, 3))), "boxes": [decoded]}


class Functional(nn.Module):
    """A convolution and a product with parameters of its own."""

    def __init__(self):
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(8, 4, 3, 3))
        self.mixing = nn.Parameter(torch.randn(8, 8))
        self.body, self.head = nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.body(F.conv2d(x, self.kernel).relu().mean((2, 3)) @ self.mixing))


class Odd(nn.Module):
    """Its outputs are in an object of its own class."""

    class Boxes:
        def __init__(self, tensor):
            self.tensor = tensor

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8))

    def forward(self, x):
        return self.Boxes(self.body(x))


def plan(model, *shape):
    layers = plan_layers(model.eval(), torch.randn(*shape), PruneSettings())
    return {layer.name: layer.reason for layer in layers}


def having(reason, planned):
    return [name for name, found in planned.items() if found is reason]


@pytest.mark.parametrize(
    ("make", "shape", "expected"),
    [
        (lambda: torchvision.models.resnet18(), (1, 3, 64, 64), ["fc"]),
        (lambda: torchvision.models.efficientnet_b0(), (1, 3, 64, 64), ["classifier.1"]),
        (UNet, (1, 4, 8, 8), ["head"]),
        (TwoHeads, (2, 4, 4, 4), ["classes", "boxes", "decode"]),
        (Odd, (2, 8), ["body.2"]),
        (
            lambda: Anchors(detection.retinanet_resnet50_fpn(**UNTRAINED)),
            (1, 3, 128, 128),
            ["head.classification_head.cls_logits", "head.regression_head.bbox_reg"],
        ),
        (
            lambda: Anchors(detection.ssd300_vgg16(**UNTRAINED)),
            (1, 3, 300, 300),
            [
                f"head.{kind}_head.module_list.{scale}"
                for kind in ("regression", "classification")
                for scale in range(6)
            ],
        ),
    ],
    ids=["resnet18", "efficientnet", "unet", "two heads", "unknown outputs", "retinanet", "ssd"],
)
def test_every_layer_after_which_no_other_comes_is_a_head(make, shape, expected):
    assert sorted(having(Reason.HEAD, plan(make(), *shape))) == sorted(expected)


def test_a_head_is_pruned_if_it_is_included():
    layers = plan_layers(TwoHeads().eval(), torch.randn(2, 4, 4, 4), PruneSettings(include=("classes", "boxes")))
    assert {layer.name for layer in layers if layer.reason is None} == {"block", "classes", "boxes"}


def test_attention_lists_the_weights_that_its_function_uses():
    planned = plan(AttentionNet(), 1, 3, 32, 32)
    expected = ["encoder.self_attn.in_proj_weight", "encoder.self_attn.out_proj"]
    assert sorted(having(Reason.USED_BY_FUNCTION, planned)) == expected
    assert having(Reason.HEAD, planned) == ["head"]


def test_parameters_of_functions_are_listed_and_recorded():
    model = Functional().eval()
    layers = plan_layers(model, torch.randn(1, 4, 8, 8), PruneSettings())
    found = {layer.name: (layer.kind, layer.shape) for layer in layers if layer.reason is Reason.USED_BY_FUNCTION}
    assert found == {"kernel": ("Functional", (8, 4, 3, 3)), "mixing": ("Functional", (8, 8))}


def test_the_audit_knows_the_weights_of_functions():
    graph = export_model(AttentionNet().eval(), (3, 32, 32))
    dense = {name: reason.value for name, reason in plan(AttentionNet(), 1, 3, 32, 32).items() if reason}
    write_metadata(graph, {"pattern": "2:4", "dense": dense})
    reasons = {layer.name: layer.reason for layer in audit_model(graph).layers}
    assert reasons["encoder.self_attn"] == reasons["encoder.self_attn.out_proj"] == Reason.USED_BY_FUNCTION


def test_a_parametrized_weight_names_the_call_that_removes_it():
    model = nn.Sequential(nn.Conv2d(4, 8, 1), parametrizations.weight_norm(nn.Conv2d(8, 8, 1)), nn.Conv2d(8, 4, 1))
    with pytest.raises(ModelError, match=r"^1: the weight is computed by a parametrization") as caught:
        plan(model, 1, 4, 4, 4)
    assert 'torch.nn.utils.parametrize.remove_parametrizations(module, "weight")' in caught.value.hint
