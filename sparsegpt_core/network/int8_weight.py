"""A weight on an INT8 grid."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

__all__ = ["Int8Weight"]


@dataclass(frozen=True)
class Int8Weight:
    """A weight on an INT8 grid: row k is scales[k] · values[k].

    Example:
        >>> import torch
        >>> weight = Int8Weight(torch.tensor([[127, 0]], dtype=torch.int8), torch.tensor([0.5]), torch.zeros(1))
        >>> (weight.values * weight.scales[:, None]).tolist()
        [[63.5, 0.0]]
    """

    values: Tensor
    """int8, in the weight's own shape (K, ...)."""
    scales: Tensor
    """(K,), positive."""
    shift: Tensor
    """(K,), added to the layer's outputs to keep the means they have without rounding."""
