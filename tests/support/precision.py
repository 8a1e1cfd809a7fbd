"""The precision of float32 products: a network that records it, and its restoration after a test."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, backends, nn

OPERATIONS: tuple[Any, ...] = (
    *(backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn),
    *(backends.mkldnn.matmul, backends.mkldnn.conv, backends.mkldnn.rnn),
)
"""The operations that have an ``fp32_precision``."""
PLACES = (backends, backends.cudnn, *OPERATIONS)
"""All places that have one, parents first."""


@contextlib.contextmanager
def restored_precision() -> Iterator[None]:
    """Put every ``fp32_precision`` of the process back at the end."""
    before = []
    for each in PLACES:
        before.append(each.fp32_precision)
        each.fp32_precision = "none"
    _set(before)
    try:
        yield
    finally:
        _set(before)


def _set(precisions: list[str]) -> None:
    for each, precision in zip(PLACES, precisions, strict=True):
        each.fp32_precision = precision


class PrecisionProbe(nn.Module):
    """A linear layer. ``seen`` gets the precision of matrix products and whether cuDNN may use TF32."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.seen: list[tuple[str, bool]] = []

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, 3) for images (N, 4, 1, 1)."""
        self.seen.append((torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32))
        logits: Tensor = self.layer(x.flatten(1))
        return logits
