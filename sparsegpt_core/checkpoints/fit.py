"""Checks that weights fit a network, and loads them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor, nn

from sparsegpt_core.checkpoints.names import match_names
from sparsegpt_core.errors import ModelError
from sparsegpt_core.network import check_finite, parametrized_tensors, remove_parametrization

__all__ = ["check_fit", "load_into"]


def load_into(model: nn.Module, state: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Load weights into a network, whose names they may bear with a prefix.

    A parametrization of the network is removed where the weights contain its result.

    Args:
        model: The network.
        state: The weights, by name.

    Returns:
        The prefixes that were removed from the names, as :func:`match_names` finds them.

    Raises:
        ModelError: The weights do not fit, as in :func:`check_fit`.
        NumericsError: A number is too large for the network's precision.

    Example:
        >>> import torch
        >>> layer = nn.Linear(4, 2, bias=False)
        >>> load_into(layer, {"module.weight": torch.ones(2, 4)})
        ('module.',)
        >>> layer.weight.sum().item()
        8.0
    """
    computed = parametrized_tensors(model)
    matched, removed = match_names(state, {*model.state_dict(), *computed})
    for name in computed.keys() & matched.keys():
        remove_parametrization(*computed[name])
    _check(model, matched)
    model.load_state_dict(matched)
    check_finite(model.state_dict())
    return removed


def check_fit(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Compare the names, shapes and dtypes of weights with those of a network, which may be on the meta device.

    Raises:
        ModelError: A tensor is missing, unknown, or of another shape or dtype. The message names the first one.

    Example:
        >>> import torch
        >>> check_fit(nn.Linear(4, 2, bias=False), {"weight": torch.ones(2, 4)})
    """
    _check(model, match_names(state, model.state_dict())[0])


def _check(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    problem = next(_misfits(state, model.state_dict()), None)
    if problem:
        raise ModelError(
            f"the checkpoint does not fit the model: {problem}", "Check `model`, `data` and `num_classes`."
        )


def _misfits(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> Iterator[str]:
    """Give each difference between a checkpoint and the model's own state: names, then shapes, then dtypes."""
    yield from (f"it has no {name}" for name in own if name not in state)
    yield from (f"it has {name}, which the model does not have" for name in state if name not in own)
    for name, value in own.items():
        if state[name].shape != value.shape:
            yield f"its {name} has shape {tuple(state[name].shape)}, the model's {tuple(value.shape)}"
    for name, value in own.items():
        if name.rpartition(".")[2] == "num_batches_tracked":  # a counter, which a cast of all tensors makes a float
            continue
        if state[name].is_floating_point() != value.is_floating_point() or state[name].is_complex():
            yield f"its {name} has dtype {state[name].dtype}, the model's {value.dtype}"
