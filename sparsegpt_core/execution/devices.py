"""Which device a model is on, and whether a named one can be used."""

from __future__ import annotations

import torch
from torch import nn

from sparsegpt_core.errors import InputError

__all__ = ["device_of", "find_device"]


def find_device(name: str) -> torch.device:
    """Return a device that is there.

    Raises:
        InputError: There is no such device.
    """
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"device '{name}' cannot be used: {str(error).splitlines()[0]}", "Use cpu or cuda.") from error
    return device


def device_of(model: nn.Module) -> torch.device:
    """Return where the model's parameters are; the CPU where it has none."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
