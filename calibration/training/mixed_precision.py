"""The precision that training computes in, and reproducible random numbers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from calibration.training.settings import PRECISIONS

__all__ = ["autocast", "autocast_dtype", "reproducible"]


def autocast_dtype(name: str, device: torch.device) -> torch.dtype | None:
    """Return the dtype to autocast to, or None for FP32.

    Args:
        name: ``fp32``, ``bf16``, ``fp16``, or ``auto``: the fastest one on the device.
        device: The device that computes.

    Example:
        >>> autocast_dtype("bf16", torch.device("cpu"))
        torch.bfloat16
    """
    if name != "auto":
        return PRECISIONS[name]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if device.type == "cpu" and (torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()):
        return torch.bfloat16
    return None


def autocast(device: torch.device, dtype: torch.dtype | None) -> torch.autocast:
    """Return a context that computes in ``dtype`` where autocast allows it; None disables autocast.

    Example:
        >>> with autocast(torch.device("cpu"), torch.bfloat16):
        ...     (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
        torch.bfloat16
    """
    return torch.autocast(device.type, dtype, enabled=dtype is not None)


@contextlib.contextmanager
def reproducible(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's random numbers and make cuDNN deterministic; restore both on exit.

    Example:
        >>> with reproducible(7, torch.device("cpu")):
        ...     first = torch.rand(3)
        >>> with reproducible(7, torch.device("cpu")):
        ...     torch.equal(first, torch.rand(3))
        True
    """
    deterministic = torch.backends.cudnn.deterministic
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        torch.backends.cudnn.deterministic = True
        try:
            yield
        finally:
            torch.backends.cudnn.deterministic = deterministic
