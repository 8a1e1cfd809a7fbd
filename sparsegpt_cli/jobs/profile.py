"""Which layers a profile leaves dense: those that sparse kernels do not make faster."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from deploy.predict import layers_without_gain
from sparsegpt_cli.messages import Messages
from sparsegpt_core.errors import InputError

__all__ = ["idle_layers"]

_SHOWN = 8  # names in the message


def idle_layers(profile: Path, model: nn.Module, messages: Messages) -> tuple[str, ...]:
    """Name the modules that gain nothing, and say so.

    Args:
        profile: What ``predict`` or ``explain`` wrote.
        model: The network to be pruned.
        messages: Told how many they are.

    Raises:
        InputError: The profile is missing or damaged, or another network's.
    """
    named = layers_without_gain(profile)
    modules = dict(model.named_modules())
    found = tuple(name for name in named if name in modules)
    if named and not found:
        raise InputError(
            f"{profile} is of another network: this one has no layer '{named[0]}'", "Predict with its own ONNX file."
        )
    shown = ", ".join(found[:_SHOWN]) + (", ..." if len(found) > _SHOWN else "")
    messages.say(f"{profile}: {len(found)} layers stay dense, since 2:4 gains nothing there{shown and f': {shown}'}")
    return found
