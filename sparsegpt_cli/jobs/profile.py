"""Finds the layers that sparse kernels do not make faster, in a profile."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from deploy.predict import layers_without_gain
from sparsegpt_cli.messages import Messages
from sparsegpt_core.errors import InputError

__all__ = ["idle_layers"]

_MAX_NAMES = 8  # in the message


def idle_layers(profile: Path, model: nn.Module, messages: Messages) -> tuple[str, ...]:
    """Return the names of the layers that gain nothing.

    Args:
        profile: A file of ``predict`` or ``explain``.
        model: The network to prune.
        messages: Takes a message about these layers.

    Raises:
        InputError: The profile is missing or damaged, or belongs to another network.
    """
    named = layers_without_gain(profile)
    layers = {name for name, _ in (*model.named_modules(), *model.named_parameters())}
    found = tuple(name for name in named if name in layers)
    if named and not found:
        raise InputError(
            f"{profile} belongs to another network: this one has no layer '{named[0]}'",
            "Use a profile of this network's ONNX file.",
        )
    shown = ", ".join(found[:_MAX_NAMES]) + (", ..." if len(found) > _MAX_NAMES else "")
    messages.say(f"{profile}: {len(found)} layers stay dense, since 2:4 gains nothing there{shown and f': {shown}'}")
    return found
