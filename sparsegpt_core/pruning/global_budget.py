"""Helpers that several test files share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from sparsegpt_core.errors import InputError
from sparsegpt_core.execution import DEFAULT, Resources
from sparsegpt_core.network import Batch
from sparsegpt_core.patterns import NM
from sparsegpt_core.progress import Progress, silent
from sparsegpt_core.pruning.saliency import measure_saliencies
from sparsegpt_core.settings import PruneSettings

__all__ = ["global_quotas"]

_FULLEST = 0.99  # zeros in a layer at most, and non-zeros


def global_quotas(
    model: nn.Module,
    batches: Sequence[Batch],
    settings: PruneSettings,
    progress: Progress = silent,
    resources: Resources = DEFAULT,
) -> dict[str, float]:
    """Share one budget of zeros among the layers: those go that are worth least beside their layer's energy.

    Args:
        model: In float32; not changed.
        batches: Calibration inputs, as :func:`~sparsegpt_core.pruning.prune_model` takes them.
        settings: An unstructured pattern, damping and layers.
        progress: Told of every layer.
        resources: Memory, scratch folder and processes.

    Returns:
        The fraction of zeros of every layer to prune; no layer is emptied.

    Raises:
        InputError: The pattern is N:M.
    """
    if isinstance(settings.pattern, NM):
        raise InputError(f"{settings.pattern} leaves no budget to share", "Use a fraction such as --pattern 0.5.")
    found = measure_saliencies(model, batches, settings, progress, resources)
    relative = {name: (worth / (found.energies[name] or 1.0)).cpu() for name, worth in found.saliencies.items()}
    everything = torch.cat([worth.flatten() for worth in relative.values()])
    threshold = everything.kthvalue(max(1, round(settings.pattern.sparsity * len(everything)))).values
    shares = {name: float((worth <= threshold).double().mean()) for name, worth in relative.items()}
    return {name: min(max(share, 1 - _FULLEST), _FULLEST) for name, share in shares.items()}
