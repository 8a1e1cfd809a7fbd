"""Distillation: training on a dense network's outputs as well as on the labels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from calibration.training.settings import check_setting
from sparsegpt_core.errors import ModelError

__all__ = ["Distillation"]


@dataclass(frozen=True, eq=False)
class Distillation:
    """A teacher, and its share of the loss (Hinton, Vinyals & Dean, 2015).

    Raises:
        InputError: A value is out of range.

    Example:
        >>> import torch
        >>> distillation = Distillation(nn.Identity(), weight=0.5)
        >>> logits = torch.tensor([[1.0, -1.0]])
        >>> distillation.loss(torch.tensor(2.0), logits, teacher_logits=logits)
        tensor(1.)
    """

    teacher: nn.Module
    """Images (N, C, H, W) to logits (N, classes). It runs in eval mode and does not learn."""
    weight: float = 0.9
    """The teacher's share of the loss, from 0 to 1. The labels have the rest."""
    temperature: float = 2.0
    """Divisor of the logits. A higher one gives unlikely classes more influence."""

    def __post_init__(self) -> None:
        check_setting("distill", self.weight, 0 <= self.weight <= 1, "from 0 to 1")
        check_setting("temperature", self.temperature, 0 < self.temperature < math.inf, "positive")

    def loss(self, cross_entropy: Tensor, logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """Return (1 − weight) · cross-entropy + weight · T² · KL(teacher ‖ student), with logits divided by T.

        Args:
            cross_entropy: The loss on the labels, a scalar.
            logits: The student's (N, classes).
            teacher_logits: The teacher's (N, classes).

        Raises:
            ModelError: The two networks have different numbers of classes.
        """
        if logits.shape != teacher_logits.shape:
            raise ModelError(
                f"the dense network has {teacher_logits.shape[1]} classes, the pruned one {logits.shape[1]}",
                "Give `dense` the network that was pruned.",
            )
        student, teacher = ((each / self.temperature).log_softmax(1) for each in (logits, teacher_logits))
        divergence = F.kl_div(student, teacher, reduction="batchmean", log_target=True)
        return (1 - self.weight) * cross_entropy + self.weight * self.temperature**2 * divergence
