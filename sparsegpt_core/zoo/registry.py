"""From a model's name to an untrained network."""

from __future__ import annotations

import difflib
import importlib
import inspect
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from sparsegpt_core.errors import MissingDependencyError, ModelError, first_line

__all__ = ["ModelShape", "build_model", "register", "registered"]


@dataclass(frozen=True)
class ModelShape:
    """What a network must take and give; ``num_classes`` None means the factory's own default."""

    image: tuple[int, int, int]
    num_classes: int | None = None


Factory = Callable[[ModelShape], nn.Module]
_FACTORIES: dict[str, Factory] = {}


def register(factory: Factory) -> Factory:
    """Decorate a factory: its function name becomes a name for ``--model``."""
    _FACTORIES[factory.__name__] = factory
    return factory


def registered() -> list[str]:
    """Names of the registered networks."""
    importlib.import_module("sparsegpt_core.zoo.reference")
    return sorted(_FACTORIES)


def build_model(spec: str, shape: ModelShape) -> nn.Module:
    """Build an untrained network.

    Args:
        spec: A registered name, ``torchvision:NAME``, ``timm:NAME`` or ``package.module:factory``. The
            last imports and runs that code; the factory is called without arguments.
        shape: Image shape (C, H, W) and number of classes, for networks that can be built to order.

    Raises:
        ModelError: No such model, or it cannot be built this way.
        MissingDependencyError: The package is not installed.
    """
    source, _, name = spec.rpartition(":")
    if source == "torchvision":
        return _torchvision(name, shape)
    if source == "timm":
        return _timm(name, shape)
    if source:
        return _imported(source, name)
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
        options["weights_backbone"] = None  # the default of segmentation networks and detectors is a download
    with warnings.catch_warnings():
        # GoogLeNet and Inception announce a slower default initialisation to come.
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


def _imported(source: str, name: str) -> nn.Module:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # last, so that nothing installed is shadowed
    try:
        factory = getattr(importlib.import_module(source), name)
    except (Exception, SystemExit) as error:  # a stranger's code may raise anything
        raise ModelError(
            f"cannot import {name} from {source}: {first_line(error)}",
            "Give package.module:factory, importable from here; factory() must return a torch.nn.Module.",
        ) from error
    return _built(factory, f"{source}:{name}")


def _built(factory: Callable[[], Any], spec: str) -> nn.Module:
    try:
        model = factory()
    except (Exception, SystemExit) as error:  # a stranger's code may raise anything
        raise ModelError(f"building {spec} failed: {type(error).__name__}: {first_line(error)}") from error
    if not isinstance(model, nn.Module):
        raise ModelError(f"{spec} made a {type(model).__name__}, not a torch.nn.Module")
    return model
