"""The four reference networks, sized for any small image and any number of channels."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from sparsegpt_core.zoo.registry import ModelShape, register

__all__ = ["cifar_cnn", "resnet18_cifar", "simple_cnn", "vgg16_cifar"]


def _classes(shape: ModelShape) -> int:
    return 10 if shape.num_classes is None else shape.num_classes


def _conv_block(name: str, inputs: int, outputs: int, *, norm: bool) -> dict[str, nn.Module]:
    block: dict[str, nn.Module] = {f"conv{name}": nn.Conv2d(inputs, outputs, 3, padding=1, bias=not norm)}
    if norm:
        block[f"norm{name}"] = nn.BatchNorm2d(outputs)
    return {**block, f"relu{name}": nn.ReLU(inplace=True)}


def _head(inputs: int, hidden: int, shape: ModelShape) -> dict[str, nn.Module]:
    return {
        "flatten": nn.Flatten(),
        "fc1": nn.Linear(inputs, hidden),
        "relu_fc1": nn.ReLU(inplace=True),
        "dropout": nn.Dropout(0.5),
        "fc2": nn.Linear(hidden, _classes(shape)),
    }


@register
def simple_cnn(shape: ModelShape) -> nn.Module:
    """Two 3×3 convolutions and two linear layers: 6.5 M parameters on 28×28 images."""
    channels, height, width = shape.image
    layers = {
        **_conv_block("1", channels, 64, norm=False),
        "pool1": nn.MaxPool2d(2),
        **_conv_block("2", 64, 128, norm=False),
        "pool2": nn.MaxPool2d(2),
        **_head(128 * (height // 4) * (width // 4), 1024, shape),
    }
    return nn.Sequential(OrderedDict(layers))


@register
def cifar_cnn(shape: ModelShape) -> nn.Module:
    """Six 3×3 convolutions with batch norm and two linear layers: 9.6 M parameters on 32×32 images."""
    channels, height, width = shape.image
    layers: dict[str, nn.Module] = {}
    for stage, outputs in enumerate((64, 128, 256), 1):
        layers |= _conv_block(f"{stage}a", channels, outputs, norm=True)
        layers |= _conv_block(f"{stage}b", outputs, outputs, norm=True)
        layers[f"pool{stage}"] = nn.MaxPool2d(2)
        channels = outputs
    layers |= _head(channels * (height // 8) * (width // 8), 2048, shape)
    return nn.Sequential(OrderedDict(layers))


@register
def resnet18_cifar(shape: ModelShape) -> nn.Module:
    """ResNet-18 with a 3×3 stem at stride 1 and no max-pooling, for 28×28 or 32×32 images: 11.2 M parameters."""
    from torchvision.models import resnet18

    model: nn.Module = resnet18(num_classes=_classes(shape))
    model.conv1 = nn.Conv2d(shape.image[0], 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()
    return model


@register
def vgg16_cifar(shape: ModelShape) -> nn.Module:
    """VGG-16 with batch norm and the full 4096-wide classifier: 134 M parameters, images of 32×32 or more."""
    from torchvision.models import vgg16_bn

    model: nn.Module = vgg16_bn(num_classes=_classes(shape))
    features = model.features
    if isinstance(features, nn.Sequential):
        features[0] = nn.Conv2d(shape.image[0], 64, 3, padding=1)
    return model
