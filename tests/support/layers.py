"""Random layers for the solvers."""

from __future__ import annotations

import torch


def layer(rows, columns, positions=200, seed=0):
    """Return a weight (rows, columns) and the Hessian of correlated inputs, float64."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(positions, columns, generator=generator, dtype=torch.float64)
    x = x @ torch.randn(columns, columns, generator=generator, dtype=torch.float64)
    weight = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    return weight, x.T @ x / positions
