"""Helpers that several test files share."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

__all__ = ["Int8Weight"]


@dataclass(frozen=True)
class Int8Weight:
    """A weight on an INT8 grid: s_k · integer.

    ``values`` are int8, of the weight's own shape (K, ...); ``scales`` (K,) are positive; ``shift`` (K,) is what to
    add to the layer's outputs so that they keep the means they have with the weight before rounding.
    """

    values: Tensor
    scales: Tensor
    shift: Tensor
