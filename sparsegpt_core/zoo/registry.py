"""Builds an untrained network from its name."""

from __future__ import annotations

import difflib
import inspect
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from sparsegpt_core.errors import MissingDependencyError, ModelError, first_line
from sparsegpt_core.user_code import import_object

__all__ = ["ModelShape", "build_model", "register", "registered"]


@dataclass(frozen=True)
class ModelShape:
    """The input and output of a network.

    Example:
        >>> ModelShape((3, 32, 32), num_classes=10).image
        (3, 32, 32)
    """

    image: tuple[int, int, int]
    """The shape (C, H, W) of an image."""
    num_classes: int | None = None
    """The number of classes; None for the default of the network."""


Factory = Callable[[ModelShape], nn.Module]
_FACTORIES: dict[str, Factory] = {}


def register(factory: Factory) -> Factory:
    """Register a factory under the name of its function. Decorates the factory."""
    _FACTORIES[factory.__name__] = factory
    return factory


def registered() -> list[str]:
    """Return the names of the registered networks.

    Example:
        >>> registered()
        ['cifar_cnn', 'resnet18_cifar', 'simple_cnn', 'vgg16_cifar']
    """
    return sorted(_FACTORIES)


def build_model(spec: str, shape: ModelShape) -> nn.Module:
    """Build an untrained network.

    Args:
        spec: A registered name, ``torchvision:NAME``, ``timm:NAME``, ``package.module:factory`` or
            ``path/to/file.py:factory``. The last two import and run that code, and call the factory without arguments.
        shape: The image shape (C, H, W) and number of classes, for networks that take them.

    Raises:
        ModelError: There is no such network, or it cannot be built.
        InputError: The code that the spec names cannot be imported.
        MissingDependencyError: timm is not installed.

    Example:
        >>> network = build_model("simple_cnn", ModelShape((1, 8, 8), num_classes=10))
        >>> network.fc2.out_features
        10
    """
    source, _, name = spec.rpartition(":")
    if source == "torchvision":
        return _torchvision(name, shape)
    if source == "timm":
        return _timm(name, shape)
    if source:
        return _built(import_object(spec), spec)
    if name not in registered():
        raise ModelError(f"unknown model '{spec}'", _nearest(spec, registered()))
    return _built(lambda: _FACTORIES[name](shape), spec)


def _nearest(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if near:
        return f"Did you mean {' or '.join(near)}?"
    return f"Use {', '.join(registered())}, torchvision:NAME, timm:NAME or package.module:factory."


def _torchvision(name: str, shape: ModelShape) -> nn.Module:
    from torchvision import models

    names = models.list_models()
    if name not in names:
        raise ModelError(f"torchvision has no model '{name}'", _nearest(name, names))
    options: dict[str, Any] = {} if shape.num_classes is None else {"num_classes": shape.num_classes}
    if "weights_backbone" in inspect.signature(models.get_model_builder(name)).parameters:
        options["weights_backbone"] = None  # segmentation networks and detectors download weights by default
    with warnings.catch_warnings():
        # GoogLeNet and Inception announce a change of their initialisation.
        warnings.filterwarnings("ignore", message=".*weight initialization", category=FutureWarning)
        return _built(lambda: models.get_model(name, weights=None, **options), f"torchvision:{name}")


def _timm(name: str, shape: ModelShape) -> nn.Module:
    try:
        import timm
    except ImportError as error:
        raise MissingDependencyError(
            f"timm:{name} needs timm ({error})", 'Install it: pip install "sparsegpt-trt[timm]"'
        ) from error
    if not timm.is_model(name):
        raise ModelError(f"timm has no model '{name}'", _nearest(name, timm.list_models()))
    options: dict[str, Any] = {"in_chans": shape.image[0]}
    if shape.num_classes is not None:
        options["num_classes"] = shape.num_classes
    return _built(lambda: timm.create_model(name, pretrained=False, **options), f"timm:{name}")


def _built(factory: Callable[[], Any], spec: str) -> nn.Module:
    try:
        model = factory()
    except (Exception, SystemExit) as error:  # a user's code may raise anything
        raise ModelError(f"building {spec} failed: {type(error).__name__}: {first_line(error)}") from error
    if not isinstance(model, nn.Module):
        raise ModelError(f"{spec} made a {type(model).__name__}, not a torch.nn.Module")
    return model
