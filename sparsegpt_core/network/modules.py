"""What several stages ask of a network: a pause from training, and numbers that are numbers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from sparsegpt_core.errors import NumericsError
from sparsegpt_core.network.inputs import spread

__all__ = ["check_finite", "eval_mode"]


@contextlib.contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Put every module into eval mode, and each back into its own mode afterwards.

    Meanwhile the network takes :class:`~sparsegpt_core.network.inputs.Inputs` in place of its several tensors.
    """
    training = [module for module in model.modules() if module.training]
    model.eval()
    hook = model.register_forward_pre_hook(spread)
    try:
        yield
    finally:
        hook.remove()
        for module in training:
            module.training = True


def check_finite(state: Mapping[str, Tensor]) -> None:
    """Refuse NaN and infinity.

    Raises:
        NumericsError: Names the first tensor that holds any.
    """
    for name, value in state.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise NumericsError(f"{name} holds NaN or infinity", "Use weights from a training run that converged.")
