"""Where and within what a network is pruned; none of it changes the result beyond rounding."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from sparsegpt_core.execution.distributed import ALONE, World

__all__ = ["DEFAULT", "Resources", "full_precision"]


@dataclass(frozen=True)
class Resources:
    """The resources of a pruning run."""

    memory_limit: int | None = None
    """Bytes that the process (on CUDA: its tensors) may take; by default four fifths of what is free."""
    scratch: Path | None = None
    """Where activations go that do not fit; by default the system's temporary folder."""
    tf32: bool = False
    """Let CUDA round the factors of products to TF32."""
    traced: bool = True
    """Walk the traced network once; otherwise one forward pass for each layer, as for untraceable networks."""
    world: World = ALONE
    """The processes that share the work."""
    finished: Path | None = None
    """Where layers, and orders of channels, are kept as they are finished, for another run to go on behind them; None,
    or several processes, keep nothing."""


DEFAULT = Resources()


@contextlib.contextmanager
def full_precision(tf32: bool) -> Iterator[None]:
    """Keep float32 products in float32, whatever the process is set to; TF32 only where asked for."""
    matmul, cudnn = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(matmul)
        torch.backends.cudnn.allow_tf32 = cudnn
