"""Removes what wrappers put before the names of weights: DataParallel, torch.compile, Lightning."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from torch import Tensor

__all__ = ["match_names"]

_COMPILED = "_orig_mod."  # of torch.compile; it stands before the compiled part, which need not be the whole network
_WRAPPERS = ("module", "model")  # of DataParallel and AveragedModel; of Lightning
_COUNTER = "n_averaged"  # the one tensor that torch.optim.swa_utils.AveragedModel adds


def match_names(state: Mapping[str, Tensor], names: Collection[str]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Remove prefixes from the names of weights where more of them are then names of the model.

    Prefixes are those of wrappers (``module.``, ``_orig_mod.``, ``model.``), and any other that all names have.

    Args:
        state: The weights, by name.
        names: The names in the model.

    Returns:
        The weights by their new names, and the prefixes that were removed.

    Example:
        >>> import torch
        >>> match_names({"net.fc.weight": torch.ones(1), "net.fc.bias": torch.ones(1)}, ["fc.weight", "fc.bias"])[1]
        ('net.',)
    """
    best, removed = dict(state), tuple[str, ...]()
    for prefixes, renamed in _candidates(state):
        if len(renamed) == len(state) and _fits(renamed, names) > _fits(best, names):
            best, removed = renamed, prefixes
    if removed and _COUNTER not in names:
        best.pop(_COUNTER, None)
    return best, removed


def _candidates(state: Mapping[str, Tensor]) -> Iterator[tuple[tuple[str, ...], dict[str, Tensor]]]:
    """Give the prefixes that can be removed, with the weights by the names that are left."""
    for compiled in ("", _COMPILED):
        source = {name.replace(compiled, ""): value for name, value in state.items()}
        for prefix in ("", *_prefixes(source)):
            renamed = {name.removeprefix(prefix): value for name, value in source.items()}
            yield tuple(filter(None, (compiled, prefix))), renamed


def _prefixes(names: Collection[str]) -> Iterator[str]:
    """Give the beginnings up to each dot that all names have, or that consist of wrappers."""
    for prefix in dict.fromkeys(name[: place + 1] for name in names for place, sign in enumerate(name) if sign == "."):
        if all(name.startswith(prefix) for name in names) or all(part in _WRAPPERS for part in prefix[:-1].split(".")):
            yield prefix


def _fits(state: Mapping[str, Tensor], names: Collection[str]) -> int:
    return sum(name in names for name in state)
