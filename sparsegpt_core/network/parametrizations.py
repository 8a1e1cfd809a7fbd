"""Replaces tensors that parametrizations compute (weight_norm, spectral_norm) by their values."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn
from torch.nn.utils import parametrize

__all__ = ["parametrized_tensors", "remove_parametrization", "remove_parametrizations"]


def parametrized_tensors(model: nn.Module) -> dict[str, tuple[nn.Module, str]]:
    """Return the tensors that parametrizations compute: their names in the network, with their module and attribute.

    Example:
        >>> model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 2)))
        >>> list(parametrized_tensors(model))
        ['0.weight']
    """
    return {
        f"{name}.{attribute}".lstrip("."): (module, attribute)
        for name, module in model.named_modules()
        if parametrize.is_parametrized(module)
        for attribute in _parametrizations(module)
    }


def remove_parametrization(module: nn.Module, attribute: str) -> None:
    """Replace a tensor that a parametrization computes by its value, as a parameter, in place.

    Example:
        >>> layer = nn.utils.parametrizations.weight_norm(nn.Linear(4, 2))
        >>> remove_parametrization(layer, "weight")
        >>> sorted(layer.state_dict())
        ['bias', 'weight']
    """
    parametrized = type(module)
    # Copies of a module share the class whose property is deleted: this one gets its own.
    module.__class__ = type(parametrized.__name__, parametrized.__bases__, dict(vars(parametrized)))
    _parametrizations(module)[attribute].requires_grad_(True)  # else the value becomes a buffer
    parametrize.remove_parametrizations(module, attribute, leave_parametrized=True)


def remove_parametrizations(model: nn.Module) -> list[str]:
    """Replace all tensors that parametrizations compute by their values, in place, and return their names.

    A tensor that has another value each time, such as one with noise, stays parametrized.

    Args:
        model: The network, in evaluation mode: ``spectral_norm`` changes its estimate in training mode.

    Example:
        >>> model = nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(4, 2))).eval()
        >>> remove_parametrizations(model)
        ['0.weight']
    """
    removed = []
    for name, (module, attribute) in parametrized_tensors(model).items():
        if torch.equal(getattr(module, attribute), getattr(module, attribute)):
            remove_parametrization(module, attribute)
            removed.append(name)
    return removed


def _parametrizations(module: nn.Module) -> nn.ModuleDict:
    return cast(nn.ModuleDict, module.parametrizations)
