"""Devices: from a name, or of a model."""

from __future__ import annotations

import os

import torch
from torch import nn

from sparsegpt_core.errors import InputError, first_line
from sparsegpt_core.torchrun import local_rank, world_size

__all__ = ["device_of", "find_device", "sum_precision"]


def find_device(name: str) -> torch.device:
    """Return the device of a name, after a test that it works.

    Args:
        name: A device name of PyTorch, or "auto": CUDA if there is a GPU, else the CPU. Under ``torchrun`` "cuda" is
            the process's own GPU.

    Raises:
        InputError: There is no such device.

    Example:
        >>> find_device("cpu")
        device(type='cpu')
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and world_size() > 1:
        name = f"cuda:{local_rank()}"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        said = first_line(error)
        raise InputError(f"device '{name}' cannot be used: {said}", _advice(name, said)) from error
    return device


def _advice(name: str, said: str) -> str:
    if name.partition(":")[0] != "cuda":
        return "Use cpu or cuda."
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if torch.version.cuda is None:
        advice = "Install a PyTorch that is built for CUDA"
    elif "no NVIDIA driver" in said:
        advice = "Install NVIDIA's driver. In a container, use `docker run --gpus all`"
    elif visible is not None:
        advice = f"CUDA_VISIBLE_DEVICES is '{visible}'. Set it to a GPU that `nvidia-smi -L` lists, or unset it"
    else:
        advice = "Use a GPU that `nvidia-smi -L` lists"
    return f"{advice}, or set `device=cpu`."


def device_of(model: nn.Module) -> torch.device:
    """Return the device of the model's first parameter; the CPU if it has no parameters.

    Example:
        >>> device_of(nn.Linear(4, 2))
        device(type='cpu')
    """
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def sum_precision(device: torch.device) -> torch.dtype:
    """Return the dtype of sums whose order must not matter: float64, or float32 on MPS, which has no float64.

    Example:
        >>> sum_precision(torch.device("cpu"))
        torch.float64
    """
    return torch.float32 if device.type == "mps" else torch.float64
