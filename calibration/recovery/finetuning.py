"""Fine-tuning of a pruned network: everything learns except its zeros."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from calibration.data import Data
from calibration.training import (
    AfterEpoch,
    Distillation,
    FrozenZeros,
    TrainResult,
    TrainSettings,
    Unfinished,
    ignore_history,
    train,
)
from sparsegpt_core.execution import find_device
from sparsegpt_core.patterns import Pattern
from sparsegpt_core.progress import Progress, silent

__all__ = ["finetune", "finetune_settings"]

_LEARNING_RATES = {  # by mode and optimiser; without batch statistics only smaller steps are stable
    "train": {"sgd": 0.01, "adamw": 3e-4},
    "eval": {"sgd": 1e-3, "adamw": 3e-5},
}


def finetune_settings(**given: Any) -> TrainSettings:
    """Return training settings that suit fine-tuning for one epoch or a few.

    Args:
        given: Fields of :class:`~calibration.training.TrainSettings` that replace the defaults.

    Raises:
        InputError: A value is out of range.

    Example:
        >>> finetune_settings().learning_rate, finetune_settings(mode="eval").learning_rate
        (0.01, 0.001)
    """
    rates = _LEARNING_RATES.get(given.get("mode", "train"), {})
    rate = rates.get(given.get("optimizer", "sgd"), 1.0)  # TrainSettings refuses an unknown mode or optimiser
    defaults: dict[str, Any] = {"epochs": 1, "schedule": "cosine", "learning_rate": rate}
    return TrainSettings(**defaults | given)


def finetune(
    model: nn.Module,
    data: Data,
    settings: TrainSettings,
    pruned: Sequence[str],
    pattern: Pattern,
    distillation: Distillation | None = None,
    progress: Progress = silent,
    unfinished: Unfinished | None = None,
    after_epoch: AfterEpoch = ignore_history,
) -> TrainResult:
    """Train a pruned network further; the zeros of its pruned weights are +0.0 after every step.

    It works as :func:`~calibration.training.train`, but validates before the first step as well, as epoch 0. Epoch 0
    can be the best one, so the validation accuracy never falls.

    Args:
        model: The pruned network. It is moved to the device and trained in place.
        data: A data set whose training split has labels.
        settings: How to train; :func:`finetune_settings` returns suitable ones.
        pruned: Names of the pruned layers.
        pattern: The pattern that their weights follow.
        distillation: The dense network, whose outputs are part of the loss.
        progress: Called with ``"train"`` and counts of steps.
        unfinished: Where to save the training state.
        after_epoch: Called with the history after every epoch.

    Raises:
        InputError: The device cannot be used.
        ModelError: A pruned layer is missing or violates the pattern, or a network does not fit the images.
        DataError: There are no labels or too few samples, or the saved state is damaged.
        NumericsError: The loss became NaN or infinite.

    Example:
        >>> import torch
        >>> from calibration.data import open_data
        >>> from sparsegpt_core.patterns import NM
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        >>> mask = torch.tensor([True, True, False, False]).repeat(10, 16)
        >>> _ = model[1].weight.data.mul_(mask)
        >>> result = finetune(model, open_data("digits"), finetune_settings(), ["1"], NM(2, 4))
        >>> [epoch.epoch for epoch in result.history]
        [0, 1]
        >>> bool(model[1].weight[~mask].any())
        False
    """
    model.to(find_device(settings.device)).to(memory_format=torch.channels_last)
    zeros = FrozenZeros(model, pruned, pattern)
    return train(
        model,
        data,
        settings,
        progress,
        unfinished,
        after_epoch,
        zeros=zeros,
        distillation=distillation,
        from_zero=True,
    )
