"""The zeros of a pruned network, held while everything else goes on learning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sparsegpt_core.errors import ModelError
from sparsegpt_core.patterns import NM, Pattern, Unstructured, find_violations, parse_pattern

__all__ = ["FrozenZeros", "noted_pruning"]

# A budget of zeros that layers share may be missed by this, since no layer is emptied wholly.
_SHARED_BUDGET_SLACK = 0.01


class FrozenZeros:
    """Every zero of some layers' weights, as it is when this is made; :meth:`restore` makes them +0.0 again.

    Args:
        model: The network, on the device where it will be trained.
        layers: Names of the pruned layers.
        pattern: What their weights obey.

    Raises:
        ModelError: There is no such layer, or its weight does not obey the pattern.
    """

    def __init__(self, model: nn.Module, layers: Sequence[str], pattern: Pattern) -> None:
        weights = {name: _weight(model, name) for name in layers}
        _check(weights, pattern)
        self._held = [(weight, weight.detach() == 0) for weight in weights.values()]
        self.restore()

    @torch.no_grad()
    def restore(self, *_: Any) -> None:
        """Put the zeros back, whatever stands there; fits as a hook behind an optimiser's steps."""
        for weight, zeros in self._held:
            weight.masked_fill_(zeros, 0.0)


def noted_pruning(metadata: Mapping[str, Any]) -> tuple[tuple[str, ...], Pattern]:
    """Return the pruned layers and the pattern that a checkpoint notes.

    Raises:
        ModelError: It notes none.
        InputError: It notes a pattern that is none.
    """
    layers, pattern = metadata.get("pruned"), metadata.get("pattern")
    if not layers or not isinstance(layers, list) or not isinstance(pattern, str):
        raise ModelError(
            "the checkpoint does not note which layers are pruned", "Give what sparsegpt-trt prune wrote to --weights."
        )
    return tuple(map(str, layers)), parse_pattern(pattern)


def _weight(model: nn.Module, layer: str) -> nn.Parameter:
    try:
        return model.get_parameter(f"{layer}.weight".lstrip("."))
    except AttributeError as error:
        raise ModelError(f"the model has no {layer}, which is noted as pruned", "Check --model.") from error


def _check(weights: Mapping[str, Tensor], pattern: Pattern) -> None:
    if isinstance(pattern, Unstructured):
        _check_budget(weights, pattern)
        return
    for name, weight in weights.items():
        if broken := _broken(weight, pattern):
            raise ModelError(f"{name}: {broken}, though noted as pruned to {pattern}", "Prune the network again.")


def _broken(weight: Tensor, pattern: NM) -> str:
    """Say how a weight breaks the pattern; nothing where it obeys."""
    if weight.dim() < 2 or weight.shape[1] % pattern.m:
        return f"a weight of shape {tuple(weight.shape)} cannot be {pattern}"
    found = find_violations(weight.detach().float().cpu().numpy(), pattern, axis=1)
    return f"{found.count} of {found.groups} groups hold too many non-zeros" if found.count else ""


def _check_budget(weights: Mapping[str, Tensor], pattern: Unstructured) -> None:
    zeros = sum(int((weight == 0).sum()) for weight in weights.values())
    share = zeros / sum(weight.numel() for weight in weights.values())
    if share < pattern.sparsity - _SHARED_BUDGET_SLACK:
        raise ModelError(
            f"{100 * share:.1f} % of the weights are zero, though noted as pruned to {pattern}",
            "Prune the network again.",
        )
