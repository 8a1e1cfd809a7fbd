"""Eval mode for a while, and a check for NaN and infinity."""

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

    Inside the context the network also takes :class:`~sparsegpt_core.network.inputs.Inputs` in place of several
    tensors.

    Example:
        >>> from torch import nn
        >>> model = nn.Dropout()
        >>> with eval_mode(model):
        ...     model.training
        False
        >>> model.training
        True
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
        NumericsError: A tensor contains NaN or infinity; the message names the first one.

    Example:
        >>> import torch
        >>> check_finite({"weight": torch.tensor([1.0, float("nan")])})
        Traceback (most recent call last):
        sparsegpt_core.errors.NumericsError: weight contains NaN or infinity
    """
    for name, value in state.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise NumericsError(f"{name} contains NaN or infinity", "Use weights from a training run that converged.")
