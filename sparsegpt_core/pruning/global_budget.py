"""Share one budget of zeros among the layers."""

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

_MAX_LAYER_SPARSITY = 0.99  # and of non-zeros


def global_quotas(
    model: nn.Module,
    batches: Sequence[Batch],
    settings: PruneSettings,
    progress: Progress = silent,
    resources: Resources = DEFAULT,
) -> dict[str, float]:
    """Share one budget of zeros among the layers. The weights with the least saliency per energy of their layer go.

    Args:
        model: In float32; not changed.
        batches: Calibration inputs, as :func:`~sparsegpt_core.pruning.prune_model` takes them.
        settings: An unstructured pattern, damping and layers.
        progress: Called after every layer.
        resources: Memory, scratch folder and processes.

    Returns:
        The fraction of zeros of every layer to prune, from 0.01 to 0.99.

    Raises:
        InputError: The pattern is N:M.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from sparsegpt_core.patterns import Unstructured
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 2))
        >>> quotas = global_quotas(model, [torch.randn(64, 8)], PruneSettings(Unstructured(0.5)))
        >>> sorted(quotas), 0.5 * (8 * 16 + 16 * 16) == quotas["0"] * 8 * 16 + quotas["2"] * 16 * 16
        (['0', '2'], True)
    """
    if isinstance(settings.pattern, NM):
        raise InputError(f"{settings.pattern} has no budget to share", "Use a fraction such as `pattern=0.5`.")
    found = measure_saliencies(model, batches, settings, progress, resources)
    relative = {name: (saliency / (found.energies[name] or 1.0)).cpu() for name, saliency in found.saliencies.items()}
    everything = torch.cat([saliency.flatten() for saliency in relative.values()])
    threshold = everything.kthvalue(max(1, round(settings.pattern.sparsity * len(everything)))).values
    shares = {name: float((saliency <= threshold).double().mean()) for name, saliency in relative.items()}
    return {name: min(max(share, 1 - _MAX_LAYER_SPARSITY), _MAX_LAYER_SPARSITY) for name, share in shares.items()}
