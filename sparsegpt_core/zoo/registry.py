"""Builds an untrained network from its name."""

from __future__ import annotations

import copy
import difflib
import importlib.util
import inspect
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from torch import nn

from sparsegpt_core.errors import MissingDependencyError, ModelError, first_line
from sparsegpt_core.interrupts import no_collection
from sparsegpt_core.user_code import import_object
from sparsegpt_core.zoo.arguments import check_arguments, parameters_of

__all__ = ["ModelShape", "build_model", "register", "registered", "runs_code", "takes_num_classes"]


@dataclass(frozen=True)
class ModelShape:
    """The input and output of a network.

    Example:
        >>> ModelShape((3, 32, 32), num_classes=10).image
        (3, 32, 32)
    """

    image: tuple[int, ...]
    """The shape (C, H, W) of an image; empty for a network that is not built for a shape."""
    num_classes: int | None = None
    """The number of classes; None for the default of the network."""


Factory = Callable[[ModelShape], nn.Module]
_PARALLEL = (nn.DataParallel, nn.parallel.DistributedDataParallel)
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


def runs_code(spec: str) -> bool:
    """Return whether a model is code of the user, and not of this program, torchvision or timm.

    Example:
        >>> runs_code("mynet.py:net"), runs_code("torchvision:resnet18"), runs_code("simple_cnn")
        (True, False, False)
    """
    return spec.rpartition(":")[0] not in ("", "torchvision", "timm")


def takes_num_classes(spec: str) -> bool:
    """Return whether a model can be built for any number of classes. The user's code is imported.

    Raises:
        InputError: The code cannot be imported.

    Example:
        >>> takes_num_classes("torchvision:resnet18")
        True
    """
    if not runs_code(spec):
        return True
    named = import_object(spec)
    return not isinstance(named, nn.Module) and "num_classes" in parameters_of(named)


def build_model(spec: str, shape: ModelShape, arguments: Mapping[str, Any] | None = None) -> nn.Module:
    """Build an untrained network.

    Args:
        spec: A registered name, ``torchvision:NAME``, ``timm:NAME``, ``package.module:factory`` or
            ``path/to/file.py:factory``. The last two import and run that code. They may also name a class, or a
            network, which is copied.
        shape: The image shape (C, H, W) and number of classes, for networks that take them. A factory gets
            ``num_classes`` if it has a parameter of this name.
        arguments: Keyword arguments for the factory, or for the function of torchvision or timm.

    Raises:
        ModelError: There is no such network, it cannot be built, or an argument is missing or unknown.
        InputError: The code that the spec names cannot be imported.
        MissingDependencyError: timm is not installed.

    Example:
        >>> network = build_model("simple_cnn", ModelShape((1, 8, 8), num_classes=10))
        >>> network.fc2.out_features
        10
    """
    source, _, name = spec.rpartition(":")
    given = dict(arguments or {})
    if source == "torchvision":
        return _torchvision(name, shape, given)
    if source == "timm":
        return _timm(name, shape, given)
    if source:
        return _imported(spec, shape, given)
    if name not in registered():
        raise ModelError(f"unknown model '{spec}'", _suggestion(spec))
    if given:
        raise ModelError(f"{spec} takes no arguments", "Leave `model_args` out.")
    return _built(lambda: _FACTORIES[name](shape), spec)


def _suggestion(name: str) -> str:
    """Return what may be meant by a model without a source."""
    from torchvision import models

    suffix = PurePath(name).suffix
    if suffix == ".py":
        return f"Name the factory in it: {name}:FACTORY."
    if suffix in (".pt", ".pth", ".safetensors"):
        return "Give `weights` the file, and `model` the network."
    if suffix == ".onnx":
        return "An ONNX file can be pruned, not trained: give `model` the PyTorch network."
    if name in models.list_models():
        return f"Did you mean torchvision:{name}?"
    if not difflib.get_close_matches(name, registered()) and importlib.util.find_spec("timm"):
        import timm

        if timm.is_model(name):
            return f"Did you mean timm:{name}?"
    return _nearest(name, registered())


def _nearest(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if near:
        return f"Did you mean {' or '.join(near)}?"
    return f"Use {', '.join(registered())}, torchvision:NAME, timm:NAME, package.module:factory or FILE.py:factory."


def _torchvision(name: str, shape: ModelShape, arguments: dict[str, Any]) -> nn.Module:
    with no_collection():
        from torchvision import models

    names = models.list_models()
    if name not in names:
        raise ModelError(f"torchvision has no model '{name}'", _nearest(name, names))
    options: dict[str, Any] = {"weights": None}
    if shape.num_classes is not None:
        options["num_classes"] = shape.num_classes
    if "weights_backbone" in inspect.signature(models.get_model_builder(name)).parameters:
        options["weights_backbone"] = None  # segmentation networks and detectors download weights by default
    with warnings.catch_warnings():
        # GoogLeNet and Inception announce a change of their initialisation.
        warnings.filterwarnings("ignore", message=".*weight initialization", category=FutureWarning)
        return _built(lambda: models.get_model(name, **options | arguments), f"torchvision:{name}")


def _timm(name: str, shape: ModelShape, arguments: dict[str, Any]) -> nn.Module:
    try:
        import timm
    except ImportError as error:
        raise MissingDependencyError(
            f"timm:{name} needs timm ({error})", 'Install it: pip install "sparsegpt-trt[timm]"'
        ) from error
    if not timm.is_model(name):
        raise ModelError(f"timm has no model '{name}'", _nearest(name, timm.list_models()))
    options: dict[str, Any] = {"pretrained": False, "in_chans": shape.image[0]}
    if shape.num_classes is not None:
        options["num_classes"] = shape.num_classes
    return _built(lambda: timm.create_model(name, **options | arguments), f"timm:{name}")


def _imported(spec: str, shape: ModelShape, arguments: dict[str, Any]) -> nn.Module:
    """Call the user's factory or class, or copy the user's network."""
    named = import_object(spec)
    if isinstance(named, nn.Module):
        if arguments:
            raise ModelError(
                f"{spec} is a network, which takes no arguments", "Name its class, or leave `model_args` out."
            )
        return copy.deepcopy(_unwrapped(named))
    given = check_arguments(spec, named, arguments, shape.num_classes)
    return _built(lambda: named(**given), spec)


def _built(factory: Callable[[], Any], spec: str) -> nn.Module:
    try:
        model = factory()
    except (Exception, SystemExit) as error:  # a user's code may raise anything
        raise ModelError(f"building {spec} failed: {type(error).__name__}: {first_line(error)}") from error
    if not isinstance(model, nn.Module):
        raise ModelError(f"{spec} made a {type(model).__name__}, not a torch.nn.Module")
    return _unwrapped(model)


def _unwrapped(model: nn.Module) -> nn.Module:
    """Return the network inside the wrappers of torch.compile and of several GPUs, which cannot be traced."""
    inner = model.module if isinstance(model, _PARALLEL) else getattr(model, "_orig_mod", None)
    return _unwrapped(inner) if isinstance(inner, nn.Module) else model
