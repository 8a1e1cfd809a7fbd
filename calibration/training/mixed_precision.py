"""What training computes in, and how it is made to repeat itself."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from calibration.training.settings import PRECISIONS

__all__ = ["autocast", "autocast_dtype", "reproducible"]


def autocast_dtype(name: str, device: torch.device) -> torch.dtype | None:
    """Return what to autocast to under a precision's name, None for FP32; ``auto`` is what the device does fastest."""
    if name != "auto":
        return PRECISIONS[name]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if device.type == "cpu" and (torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()):
        return torch.bfloat16
    return None


def autocast(device: torch.device, dtype: torch.dtype | None) -> torch.autocast:
    """Return the context that computes in ``dtype`` where it may."""
    return torch.autocast(device.type, dtype, enabled=dtype is not None)


@contextlib.contextmanager
def reproducible(seed: int, device: torch.device) -> Iterator[None]:
    """Seed what layers such as dropout draw from, have cuDNN repeat itself, and put both back."""
    deterministic = torch.backends.cudnn.deterministic
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        torch.backends.cudnn.deterministic = True
        try:
            yield
        finally:
            torch.backends.cudnn.deterministic = deterministic
