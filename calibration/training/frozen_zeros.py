"""The zeros of a pruned network, which stay zero while its other weights learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sparsegpt_core.errors import ModelError
from sparsegpt_core.network import weight_key
from sparsegpt_core.patterns import NM, Pattern, Unstructured, find_violations, parse_pattern

__all__ = ["FrozenZeros", "parse_pruning_metadata"]

# A network pruned to one budget of zeros may have this share fewer, since no layer is pruned completely.
_SHARED_BUDGET_SLACK = 0.01


class FrozenZeros:
    """The zeros that the weights of pruned layers have now. :meth:`restore` makes them +0.0 again.

    Args:
        model: The network, on the device where it will be trained.
        layers: Names of the pruned layers.
        pattern: The pattern that their weights follow.

    Raises:
        ModelError: A layer does not exist, or its weight does not follow the pattern.

    Example:
        >>> layer = nn.Linear(4, 1)
        >>> _ = layer.weight.data.copy_(torch.tensor([[0.0, 2.0, 0.0, 3.0]]))
        >>> zeros = FrozenZeros(layer, [""], NM(2, 4))
        >>> _ = layer.weight.data.add_(1.0)
        >>> zeros.restore()
        >>> layer.weight.tolist()
        [[0.0, 3.0, 0.0, 4.0]]
    """

    def __init__(self, model: nn.Module, layers: Sequence[str], pattern: Pattern) -> None:
        weights = {name: _weight(model, name) for name in layers}
        _check_pattern(weights, pattern)
        self._weights_and_zeros = [(weight, weight.detach() == 0) for weight in weights.values()]
        self.restore()

    @torch.no_grad()
    def restore(self, *_: Any) -> None:
        """Set the zeros to +0.0. Can be registered as a hook that runs after each optimiser step."""
        for weight, zeros in self._weights_and_zeros:
            weight.masked_fill_(zeros, 0.0)


def parse_pruning_metadata(metadata: Mapping[str, Any]) -> tuple[tuple[str, ...], Pattern]:
    """Return the pruned layers and the pattern from a checkpoint's metadata.

    Raises:
        ModelError: The layers or the pattern are missing.
        InputError: The pattern is not valid.

    Example:
        >>> parse_pruning_metadata({"pruned": ["conv1", "fc"], "pattern": "2:4"})
        (('conv1', 'fc'), NM(n=2, m=4))
    """
    layers, pattern = metadata.get("pruned"), metadata.get("pattern")
    if not layers or not isinstance(layers, list) or not isinstance(pattern, str):
        raise ModelError(
            "the checkpoint's metadata does not list pruned layers",
            "Give `weights` a checkpoint that sparsegpt-trt prune wrote.",
        )
    return tuple(map(str, layers)), parse_pattern(pattern)


def _weight(model: nn.Module, layer: str) -> nn.Parameter:
    try:
        return model.get_parameter(weight_key(layer, dict(model.named_parameters())))
    except AttributeError as error:
        raise ModelError(
            f"the model has no layer {layer}, which the checkpoint lists as pruned", "Check `model`."
        ) from error


def _check_pattern(weights: Mapping[str, Tensor], pattern: Pattern) -> None:
    if isinstance(pattern, Unstructured):
        _check_budget(weights, pattern)
        return
    for name, weight in weights.items():
        if violation := _violation(weight, pattern):
            raise ModelError(f"{name} is not pruned to {pattern}: {violation}", "Prune the network again.")


def _violation(weight: Tensor, pattern: NM) -> str:
    """Describe how a weight violates the pattern; an empty string if it does not."""
    if weight.dim() < 2 or weight.shape[1] % pattern.m:
        return f"a weight of shape {tuple(weight.shape)} cannot be {pattern}"
    found = find_violations(weight.detach().float().cpu().numpy(), pattern, axis=1)
    return f"{found.count} of {found.groups} groups have too many non-zeros" if found.count else ""


def _check_budget(weights: Mapping[str, Tensor], pattern: Unstructured) -> None:
    zeros = sum(int((weight == 0).sum()) for weight in weights.values())
    share = zeros / sum(weight.numel() for weight in weights.values())
    if share < pattern.sparsity - _SHARED_BUDGET_SLACK:
        raise ModelError(
            f"the layers are not pruned to {pattern}: {100 * share:.1f} % of the weights are zero",
            "Prune the network again.",
        )
