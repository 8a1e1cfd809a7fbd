"""Re-estimates the running statistics of batch norms, for a network whose weights have changed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sparsegpt_core.execution import device_of
from sparsegpt_core.network import eval_mode

__all__ = ["reestimate_batchnorm"]


def reestimate_batchnorm(model: nn.Module, batches: Sequence[Tensor]) -> int:
    """Replace the running mean and variance of every batch norm by those of the batches, in place.

    Nothing else changes: dropout is off, and each module returns to its mode. The new statistics help after a bad
    pruning method and can harm after a good one, so compare the held-out error before and after.

    Args:
        model: Any network. Without batch norms nothing happens.
        batches: Images (N, C, H, W). Each batch is weighted by its size.

    Returns:
        The number of batch norms.

    Example:
        >>> model = nn.BatchNorm2d(1)
        >>> reestimate_batchnorm(model, [torch.full((2, 1, 2, 2), 5.0)])
        1
        >>> model.running_mean
        tensor([5.])
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.running_mean is not None]
    if not norms:
        return 0
    momenta = [norm.momentum for norm in norms]
    device, seen = device_of(model), 0
    with eval_mode(model), torch.no_grad():
        try:
            for norm in norms:
                norm.train()
            for batch in batches:
                seen += len(batch)
                for norm in norms:
                    norm.momentum = len(batch) / seen  # so that the running value is the mean of all batches
                model(batch.to(device))
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
                norm.eval()
    return len(norms)
