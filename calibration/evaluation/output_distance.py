"""How far one network's outputs are from another's on the same images; labels are not needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from sparsegpt_core.errors import InputError
from sparsegpt_core.execution import device_of, run_in_halves
from sparsegpt_core.network import eval_mode

__all__ = ["Distance", "distance", "outputs_of"]


@dataclass(frozen=True)
class Distance:
    """``disagreement``: samples of another top-1 class, in percent; ``kl``: mean divergence from the reference, nats.

    ``logit_error`` is ‖reference − other‖² / ‖reference‖².
    """

    logit_error: float
    kl: float
    disagreement: float

    def to_json(self) -> dict[str, float]:
        """Return the fields under their own names."""
        return asdict(self)


def outputs_of(model: nn.Module, batches: Sequence[Tensor]) -> Tensor:
    """Return the model's first output tensor (N, classes, ...) on all images, on the CPU, in float64."""
    device = device_of(model)

    def run(images: Tensor) -> Tensor:
        output: Tensor = tree_leaves(model(_fast(images.to(device))))[0]
        return output.double().cpu()

    with eval_mode(model), torch.inference_mode():
        return torch.cat([run_in_halves(run, batch) for batch in batches])


def distance(reference: Tensor, other: Tensor) -> Distance:
    """Compare outputs (N, classes, ...), such as logits.

    Raises:
        InputError: Their shapes differ, or there is no class axis.
    """
    if reference.shape != other.shape or reference.ndim < 2:
        shapes = f"{tuple(reference.shape)} and {tuple(other.shape)}"
        raise InputError(f"outputs of shapes {shapes} cannot be compared", "Give two networks with the same classes.")
    log, log_other = F.log_softmax(reference, dim=1), F.log_softmax(other, dim=1)
    return Distance(
        logit_error=float((reference - other).square().sum() / reference.square().sum().clamp_min(1e-300)),
        kl=float((log.exp() * (log - log_other)).sum(dim=1).mean()),
        disagreement=100 * float((reference.argmax(1) != other.argmax(1)).double().mean()),
    )


def _fast(batch: Tensor) -> Tensor:
    """Images in the layout that convolutions are fastest in, on CPUs by a factor of two."""
    return batch.to(memory_format=torch.channels_last) if batch.dim() == 4 else batch
