"""The outputs of a network, and the distance between those of two on the same images. Needs no labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from sparsegpt_core.errors import InputError
from sparsegpt_core.execution import device_of, full_precision, run_in_halves
from sparsegpt_core.network import channels_last, eval_mode, name_outputs

__all__ = ["Distance", "distance", "named_outputs", "outputs_of"]


@dataclass(frozen=True)
class Distance:
    """The distance of a network's outputs from a reference."""

    logit_error: float
    """‖reference − other‖² / ‖reference‖²."""
    kl: float
    """Mean KL(reference ‖ other), in nats."""
    disagreement: float
    """Samples with a different top-1 class, in percent."""

    def to_json(self) -> dict[str, float]:
        """Return the fields by name."""
        return asdict(self)


def outputs_of(model: nn.Module, batches: Sequence[Tensor]) -> Tensor:
    """Run a model in eval mode and return its first output tensor (N, classes, ...), on the CPU in float64.

    TF32 is off: its rounding would count as a difference.

    Args:
        model: Any network.
        batches: Images (N, C, H, W).

    Example:
        >>> outputs_of(nn.Flatten(), [torch.ones(2, 3, 1, 1), torch.ones(1, 3, 1, 1)]).shape
        torch.Size([3, 3])
    """
    device = device_of(model)

    def run(images: Tensor) -> Tensor:
        output: Tensor = tree_leaves(model(channels_last(images.to(device))))[0]
        return output.double().cpu()

    with eval_mode(model), torch.inference_mode(), full_precision(tf32=False):
        return torch.cat([run_in_halves(run, batch) for batch in batches])


def named_outputs(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Run a model in eval mode and return all output tensors, on the CPU, by their names in its ONNX file.

    TF32 is off, as for :func:`outputs_of`.

    Args:
        model: Any network.
        images: (N, C, H, W).

    Example:
        >>> {name: tuple(value.shape) for name, value in named_outputs(nn.Flatten(), torch.ones(2, 3, 1, 1)).items()}
        {'logits': (2, 3)}
    """
    device = device_of(model)

    def run(batch: Tensor) -> dict[str, Tensor]:
        outputs = model(channels_last(batch.to(device)))
        tensors = [each for each in tree_leaves(outputs) if isinstance(each, Tensor)]
        named = name_outputs(outputs, classifies=tensors[0].ndim == 2)
        return {name: value.cpu() for name, value in named if isinstance(value, Tensor)}

    with eval_mode(model), torch.inference_mode(), full_precision(tf32=False):
        return run_in_halves(run, images, _join)


def distance(reference: Tensor, other: Tensor) -> Distance:
    """Compare two networks' outputs.

    Args:
        reference: Outputs (N, classes, ...), such as logits.
        other: Outputs of the same shape.

    Raises:
        InputError: The shapes differ, or there is no class axis.

    Example:
        >>> reference = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
        >>> apart = distance(reference, torch.tensor([[0.0, 3.0], [0.0, 4.0]]))
        >>> apart.disagreement, round(apart.logit_error, 2)
        (50.0, 0.72)
    """
    if reference.shape != other.shape or reference.ndim < 2:
        shapes = f"{tuple(reference.shape)} and {tuple(other.shape)}"
        raise InputError(f"outputs of shapes {shapes} cannot be compared", "Give two networks with the same classes.")
    log, log_other = F.log_softmax(reference, dim=1), F.log_softmax(other, dim=1)
    return Distance(
        logit_error=float((reference - other).square().sum() / reference.square().sum().clamp_min(1e-300)),
        kl=float((log.exp() * (log - log_other)).sum(dim=1).clamp_min(0).mean()),  # rounding may go below 0
        disagreement=100 * float((reference.argmax(1) != other.argmax(1)).double().mean()),
    )


def _join(parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
