"""Eval mode for a while, the names of outputs, and a check for NaN and infinity."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import MappingKey, keystr, tree_flatten_with_path

from sparsegpt_core.errors import NumericsError
from sparsegpt_core.network.inputs import spread

__all__ = ["check_finite", "eval_mode", "name_outputs"]


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


def name_outputs(outputs: Any, classifies: bool) -> list[tuple[str, Any]]:
    """Return the values that a network returns, without None, each with its name in an ONNX file.

    A single value is ``logits`` of a classifier, else ``output``. Other values have the names of their keys, joined
    where they are nested: ``{"out": …, "aux": …}`` gives ``out`` and ``aux``, a tuple gives ``output_0`` and
    ``output_1``.

    Args:
        outputs: A value, or tuples, lists and dicts of them.
        classifies: Whether a single value is (N, classes).

    Example:
        >>> name_outputs({"boxes": 1, "scores": (2, 3)}, classifies=False)
        [('boxes', 1), ('scores_0', 2), ('scores_1', 3)]
    """
    leaves = [(path, value) for path, value in tree_flatten_with_path(outputs)[0] if value is not None]
    if len(leaves) == 1 and not any(isinstance(key, MappingKey) for key in leaves[0][0]):
        return [("logits" if classifies else "output", leaves[0][1])]
    names = ("_".join(re.findall(r"\w+", keystr(path))) for path, _ in leaves)
    return [(name if name.isidentifier() else f"output_{name}", value) for name, (_, value) in zip(names, leaves)]


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
