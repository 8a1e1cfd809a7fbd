"""Order the channels of a network before it is pruned to N:M."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from sparsegpt_core.errors import ModelError
from sparsegpt_core.execution import DEFAULT, Resources, device_of, full_precision
from sparsegpt_core.network import Batch, as_tensors
from sparsegpt_core.patterns import NM
from sparsegpt_core.permutation import ORDERS, PermutationResult, permute_channels
from sparsegpt_core.progress import Progress, silent
from sparsegpt_core.pruning.saliency import measure_saliencies
from sparsegpt_core.reasons import Reason
from sparsegpt_core.settings import PruneSettings

__all__ = ["permute_model"]


def permute_model(
    model: nn.Module,
    batches: Sequence[Batch],
    settings: PruneSettings,
    progress: Progress = silent,
    resources: Resources = DEFAULT,
    *,
    left_dense: Mapping[str, Reason] | None = None,
    limit: float = float("inf"),
    seed: int = 0,
) -> tuple[PermutationResult | None, str]:
    """Order the channels between layers in place, so pruning loses less. The network's outputs stay the same.

    Args:
        model: In float32.
        batches: Calibration inputs, as :func:`~sparsegpt_core.pruning.prune_model` takes them.
        settings: Pattern, damping and layers.
        progress: Called after every layer whose saliency is measured, and after every search of an order.
        resources: Memory, scratch folder and processes.
        left_dense: Layers that will not be pruned, with the reason.
        limit: Seconds for the searches, without the time for the saliencies.
        seed: Seed of the searches.

    Returns:
        The result and an empty text; or None and the reason why nothing can be permuted.

    Raises:
        CheckFailedError: Outputs changed. The network is restored.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 2))
        >>> result, reason = permute_model(model, [torch.randn(64, 4)], PruneSettings())
        >>> [(space.layers, space.after < space.before) for space in result.spaces if space.order is not None]
        [(('2',), True)]
    """
    if not isinstance(settings.pattern, NM):
        return None, "unstructured pruning does not depend on the order of channels"
    found = measure_saliencies(model, batches, settings, progress, resources, left_dense)
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
