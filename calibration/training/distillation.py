"""Learning from what a dense network says, beside the labels."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from calibration.training.settings import require
from sparsegpt_core.errors import ModelError

__all__ = ["Distillation"]


@dataclass(frozen=True, eq=False)
class Distillation:
    """A teacher, and how much it counts beside the labels (Hinton, Vinyals & Dean, 2015).

    Raises:
        InputError: A value is out of range.
    """

    teacher: nn.Module
    """Images (N, C, H, W) to logits (N, classes); it runs in eval mode and learns nothing."""
    weight: float = 0.9
    """What the teacher counts, from 0 to 1; the labels count the rest."""
    temperature: float = 2.0
    """What logits are divided by, so that unlikely classes tell more."""

    def __post_init__(self) -> None:
        require("distill", self.weight, 0 <= self.weight <= 1, "from 0 to 1")
        require("temperature", self.temperature, 0 < self.temperature < float("inf"), "positive")

    def loss(self, cross_entropy: Tensor, logits: Tensor, taught: Tensor) -> Tensor:
        """Return (1 − weight) · cross-entropy + weight · T² · KL(teacher ‖ student), both softened by T.

        Args:
            cross_entropy: With the labels.
            logits: The student's (N, classes).
            taught: The teacher's.

        Raises:
            ModelError: The two have other classes.
        """
        if logits.shape != taught.shape:
            raise ModelError(
                f"the dense network has {taught.shape[1]} classes, the pruned one {logits.shape[1]}",
                "Give --dense the network that was pruned.",
            )
        soft, aim = ((each / self.temperature).log_softmax(1) for each in (logits, taught))
        divergence = F.kl_div(soft, aim, reduction="batchmean", log_target=True)
        return (1 - self.weight) * cross_entropy + self.weight * self.temperature**2 * divergence
