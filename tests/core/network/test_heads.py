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
from tests.support.networks import FunctionalNet

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
    """Parameters of its own, one of them also added to an output, and one that is no layer's."""

    def __init__(self):
        super().__init__()
        self.kernel, self.grouped = nn.Parameter(torch.randn(8, 4, 3, 3)), nn.Parameter(torch.randn(8, 4, 1, 1))
        self.mixing, self.tied = nn.Parameter(torch.randn(8, 8)), nn.Parameter(torch.randn(8, 8))
        self.body, self.last = nn.Linear(8, 8), nn.Parameter(torch.randn(4, 8))

    def forward(self, x):
        x = F.conv2d(F.conv2d(x, self.kernel), self.grouped, groups=2).relu().mean((2, 3)) @ self.mixing
        return F.linear(self.body(F.linear(x, self.tied) + self.tied.mean(0)), self.last)


class CrossAttention(nn.Module):
    """Attention to other tokens, whose weights PyTorch keeps in one parameter, or in three for other sizes."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(16, 8), nn.Linear(16, 4)
        self.one = nn.MultiheadAttention(16, 2, batch_first=True)
        self.three = nn.MultiheadAttention(16, 2, kdim=8, vdim=8, batch_first=True)

    def forward(self, x):
        y = self.body(x)
        x = self.one(x, x[:, :3], x[:, :3], need_weights=False)[0]
        return self.head(self.three(x, y, y, need_weights=False)[0])


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


@pytest.mark.parametrize(
    ("make", "functional"),
    [
        (
            lambda: torchvision.models.VisionTransformer(32, 8, 2, 2, 64, 128, num_classes=10),
            [
                f"encoder.layers.encoder_layer_{n}.self_attention.{w}"
                for n in (0, 1)
                for w in ("in_proj_weight", "out_proj")
            ],
        ),
        (
            lambda: torchvision.models.SwinTransformer([2, 2], 16, [1, 2], [1, 2], [4, 4], num_classes=10),
            [f"features.{n}.attn.{weight}" for n in ("1.0", "3.0", "3.1") for weight in ("qkv", "proj")],
        ),
    ],
    ids=["vit", "swin"],
)
def test_attention_is_pruned(make, functional):
    planned = plan(make(), 1, 3, 32, 32)
    assert {name: planned[name] for name in functional} == dict.fromkeys(functional)
    dense = [reason for reason in planned.values() if reason]
    assert sorted(dense) == [Reason.CHANNELS_NOT_MULTIPLE, Reason.HEAD]


def test_weights_of_functions_are_layers_in_running_order():
    layers = plan_layers(FunctionalNet().eval(), torch.randn(2, 4, 8, 8), PruneSettings())
    assert [(layer.name, layer.kind, layer.shape, layer.reason) for layer in layers] == [
        ("stem", "Conv2d", (16, 4, 1, 1), Reason.FIRST_LAYER),
        ("kernel", "FunctionalNet", (16, 16, 3, 3), None),
        ("attention.in_proj_weight", "MultiheadAttention", (48, 16), None),
        ("attention.out_proj", "NonDynamicallyQuantizableLinear", (16, 16), None),
        ("mixing", "ParameterDict", (16, 16), None),
        ("head", "Linear", (4, 16), Reason.HEAD),
    ]


def test_globs_name_the_weights_of_functions():
    settings = PruneSettings(include=("attention.*",), exclude=("*",))
    layers = plan_layers(FunctionalNet().eval(), torch.randn(2, 4, 8, 8), settings)
    pruned = [layer.name for layer in layers if layer.reason is None]
    assert pruned == ["attention.in_proj_weight", "attention.out_proj"]


def test_rules_hold_for_the_weights_of_functions():
    assert plan(Functional(), 1, 4, 8, 8) == {
        "kernel": Reason.FIRST_LAYER,
        "grouped": Reason.GROUPED,
        "tied": Reason.READ_ELSEWHERE,
        "body": None,
        "last": Reason.HEAD,
        "mixing": Reason.USED_BY_FUNCTION,
    }


def test_parts_of_a_weight_stay_dense_and_the_audit_knows_it():
    planned = plan(CrossAttention(), 2, 5, 16)
    assert having(Reason.USED_BY_FUNCTION, planned) == ["one.in_proj_weight"]
    separate = [f"three.{part}_proj_weight" for part in "qkv"]
    assert having(None, planned) == ["body", "one.out_proj", *separate, "three.out_proj"]
    graph = export_model(CrossAttention().eval(), (torch.randn(2, 5, 16),))
    write_metadata(
        graph, {"pattern": "2:4", "dense": {name: reason.value for name, reason in planned.items() if reason}}
    )
    audited = {layer.name: layer.reason for layer in audit_model(graph).layers}
    assert {*separate, "one.out_proj"} <= audited.keys()
    assert audited["one"] in (Reason.USED_BY_FUNCTION, Reason.NOT_CONSTANT)


def test_a_parametrized_weight_names_the_call_that_removes_it():
    model = nn.Sequential(nn.Conv2d(4, 8, 1), parametrizations.weight_norm(nn.Conv2d(8, 8, 1)), nn.Conv2d(8, 4, 1))
    with pytest.raises(ModelError, match=r"^1: the weight is computed by a parametrization") as caught:
        plan(model, 1, 4, 4, 4)
    assert 'torch.nn.utils.parametrize.remove_parametrizations(module, "weight")' in caught.value.hint
