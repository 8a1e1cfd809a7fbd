"""Batch norm's running statistics, estimated anew for a network whose weights have changed."""

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

    All else, dropout and the modules' modes included, stays as it is. It mends what a bad method breaks and
    breaks what a good one keeps: judge by held-out error whether to keep it.

    Args:
        model: Any network; without batch norm nothing happens.
        batches: Images (N, C, H, W); each batch counts by its size.

    Returns:
        How many batch norms there are.
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
                    norm.momentum = len(batch) / seen  # the cumulative average; the first batch replaces what was
                model(batch.to(device))
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
                norm.eval()
    return len(norms)
