"""Helpers that several test files share."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from sparsegpt_core.errors import ModelError
from sparsegpt_core.execution import DEFAULT, Resources, device_of, full_precision
from sparsegpt_core.network import Batch, as_tensors
from sparsegpt_core.patterns import NM
from sparsegpt_core.permutation import ORDERS, PermutationResult, permute_channels
from sparsegpt_core.progress import Progress, silent
from sparsegpt_core.pruning.saliency import measure_saliencies
from sparsegpt_core.settings import PruneSettings

__all__ = ["permute_model"]


def permute_model(
    model: nn.Module,
    batches: Sequence[Batch],
    settings: PruneSettings,
    progress: Progress = silent,
    resources: Resources = DEFAULT,
    *,
    limit: float = float("inf"),
    seed: int = 0,
) -> tuple[PermutationResult | None, str]:
    """Order the channels between layers, in place, so that pruning loses less; what the network computes stays.

    Args:
        model: In float32.
        batches: Calibration inputs, as :func:`~sparsegpt_core.pruning.prune_model` takes them.
        settings: Pattern, damping and layers.
        progress: Told of every layer surveyed and every group of channels searched.
        resources: Memory, scratch folder and processes.
        limit: Seconds after which the searches are cut off; the survey before them is not.
        seed: Of the searches.

    Returns:
        What was permuted, or None with the reason why nothing can be.

    Raises:
        CheckFailedError: Outputs changed; the network is as it was before.
    """
    if not isinstance(settings.pattern, NM):
        return None, "unstructured pruning does not care about the order of channels"
    found = measure_saliencies(model, batches, settings, progress, resources)
    with full_precision(resources.tf32):
        try:
            result = permute_channels(
                model,
                as_tensors(batches)[0][:2].to(device_of(model)),
                found.saliencies,
                found.layers,
                settings.pattern,
                energies=found.energies,
                seconds=limit,
                seed=seed,
                progress=progress,
                finished=resources.finished / ORDERS if resources.finished and resources.world.size == 1 else None,
            )
        except ModelError as error:
            return None, str(error)
    return result, ""
