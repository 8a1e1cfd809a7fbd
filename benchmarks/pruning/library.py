"""This library's ``prune_model``, with its defaults and as plain SparseGPT."""

from __future__ import annotations

from torch import Tensor, nn

from sparsegpt_core.pruning import prune_model
from sparsegpt_core.settings import PruneSettings

__all__ = ["default", "plain"]


def default(model: nn.Module, batches: list[Tensor], exclude: tuple[str, ...]) -> None:
    """Prune with the preset ``balanced``."""
    prune_model(model, batches, PruneSettings(exclude=exclude))


def plain(model: nn.Module, batches: list[Tensor], exclude: tuple[str, ...]) -> None:
    """Prune with SparseGPT alone."""
    prune_model(
        model, batches, PruneSettings(alpha=0, refit=False, bias=False, damping=0.01, mask="adaptive", exclude=exclude)
    )
