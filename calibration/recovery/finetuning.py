"""Fine-tuning a pruned network: all of it learns but its zeros."""

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
    ignore,
    train,
)
from sparsegpt_core.execution import find_device
from sparsegpt_core.patterns import Pattern
from sparsegpt_core.progress import Progress, silent

__all__ = ["finetune", "finetune_settings"]

_LEARNING_RATES = {"train": {"sgd": 0.01, "adamw": 3e-4}, "eval": {"sgd": 1e-3, "adamw": 3e-5}}


def finetune_settings(**given: Any) -> TrainSettings:
    """Return settings that recover well within an epoch or a few, but for what is given.

    Held batch norms do not divide a step's length by that of the weights: ``mode`` eval bears smaller steps only.

    Raises:
        InputError: A value is out of range.
    """
    rates = _LEARNING_RATES.get(given.get("mode", "train"), {})
    rate = rates.get(given.get("optimizer", "sgd"), 1.0)  # another mode or optimiser is refused below
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
    after_epoch: AfterEpoch = ignore,
) -> TrainResult:
    """Train a pruned network on, with every zero of its pruned weights at +0.0 after every step.

    As :func:`~calibration.training.train`, but it starts with an epoch 0, before any step, which may be the
    best: by validation the network never gets worse.

    Args:
        model: The pruned network; moved to the device and trained in place.
        data: Its training split must have labels.
        settings: How to train; :func:`finetune_settings` has defaults for it.
        pruned: Names of the pruned layers.
        pattern: What their weights obey.
        distillation: The dense network, to learn from beside the labels.
        progress: Called with ``"train"`` and counts of steps.
        unfinished: Where the training is kept while it is under way.
        after_epoch: Called with the history after every epoch.

    Raises:
        ModelError: A pruned layer is not there or breaks the pattern, or a network does not fit the images.
        DataError: There are no labels, or too few samples; or what was kept is damaged.
        NumericsError: The loss became NaN or infinite.
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
