"""Magnitude pruning: the baseline that knows nothing of the inputs."""

from __future__ import annotations

from torch import Tensor

from sparsegpt_core.masks import keep_mask
from sparsegpt_core.patterns import Pattern

__all__ = ["magnitude"]


def magnitude(weight: Tensor, pattern: Pattern) -> Tensor:
    """Return ``weight`` (K, d) with the smallest |w| of each group (or of the layer) set to zero."""
    return weight.masked_fill(~keep_mask(weight.abs(), pattern), 0)
