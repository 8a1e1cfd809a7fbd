"""Trains a network, dense or pruned, and keeps its best epoch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from calibration.data import Data, Indices, draw_indices
from calibration.evaluation import Evaluation, score
from calibration.training.distillation import Distillation
from calibration.training.frozen_zeros import FrozenZeros
from calibration.training.loop import Epoch, Loop
from calibration.training.mixed_precision import reproducible
from calibration.training.settings import TrainSettings
from calibration.training.unfinished_training import Unfinished
from sparsegpt_core.errors import DataError
from sparsegpt_core.execution import find_device
from sparsegpt_core.network import eval_mode
from sparsegpt_core.progress import Progress, silent

__all__ = ["AfterEpoch", "Epoch", "TrainResult", "TrainSettings", "ignore_history", "train"]

AfterEpoch = Callable[[Sequence[Epoch]], None]
"""Called with the history after every epoch."""

_VALIDATION_SEED = 0


@dataclass(frozen=True, eq=False)
class TrainResult:
    """The history of a training and its best weights."""

    best_epoch: int
    """Counted from 1; 0 if no step improved on the first validation."""
    history: tuple[Epoch, ...]
    """All epochs, in order."""
    best_state: dict[str, Tensor]
    """The state dict after ``best_epoch``, on the CPU."""
    teacher: Evaluation | None = None
    """The teacher's accuracy on the validation images; None without a teacher."""

    @property
    def best(self) -> Epoch:
        """The history's entry of ``best_epoch``."""
        return next(epoch for epoch in self.history if epoch.epoch == self.best_epoch)


def ignore_history(history: Sequence[Epoch]) -> None:
    """Do nothing: the default of ``after_epoch``.

    Example:
        >>> ignore_history([])
    """


def train(
    model: nn.Module,
    data: Data,
    settings: TrainSettings,
    progress: Progress = silent,
    unfinished: Unfinished | None = None,
    after_epoch: AfterEpoch = ignore_history,
    *,
    zeros: FrozenZeros | None = None,
    distillation: Distillation | None = None,
    from_zero: bool = False,
) -> TrainResult:
    """Train a model on the training split and leave it with the weights of its best epoch.

    The best epoch has the highest top-1 accuracy, and among equals the lowest loss, on a share of the training split.
    That share is the same for every seed: a network that continues from another one's weights is validated on images
    that neither has learned from. The evaluation split is never used. An incomplete last batch is skipped.

    The same seed gives the same weights on the same machine. The caller's random state does not change.

    Args:
        model: Images (N, C, H, W) to logits (N, classes). It is moved to the device and trained in place.
        data: A data set whose training split has labels.
        settings: How to train.
        progress: Called with ``"train"`` and counts of steps.
        unfinished: Where to save the training state. A state found there is continued, to the same weights as
            without the interruption.
        after_epoch: Called with the history after every epoch.
        zeros: Weights of the model, on the device, that stay zero after every step.
        distillation: A teacher, whose outputs are part of the loss.
        from_zero: Also validate before the first step, as epoch 0, which can be the best one.

    Raises:
        InputError: The device cannot be used.
        DataError: There are no labels or too few samples, or the saved state is damaged.
        ModelError: The model or the teacher does not fit the images.
        NumericsError: The loss became NaN or infinite.

    Example:
        >>> from calibration.data import open_data
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        >>> result = train(model, open_data("digits"), TrainSettings(epochs=2, augment="none"))
        >>> [epoch.epoch for epoch in result.history]
        [1, 2]
        >>> result.best.validation_top1 > 70
        True
    """
    device = find_device(settings.device)
    learn, held_out = _split_off_validation(data, settings)
    model.to(device).to(memory_format=torch.channels_last)
    teacher_mode: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
    if distillation:
        distillation.teacher.to(device).to(memory_format=torch.channels_last)
        teacher_mode = eval_mode(distillation.teacher)
    steps = max(1, len(learn) // settings.batch_size)
    loop = Loop(model, data, settings, device, steps * settings.epochs, distillation, zeros)

    def validate(network: nn.Module) -> Evaluation:
        return score(network, data.training.batches(settings.batch_size, held_out), len(held_out), device)

    def close_epoch(number: int, loss: float | None) -> None:
        loop.close_epoch(number, loss, validate(loop.learned))
        after_epoch(loop.history)

    with reproducible(settings.seed, device), teacher_mode:
        teacher = validate(distillation.teacher) if distillation else None
        if unfinished and (state := unfinished.load()[0]):
            loop.load_state(state)
        with unfinished.kept_on_interrupt(loop.state) if unfinished else contextlib.nullcontext():
            progress("train", loop.done, loop.total)
            if from_zero and not loop.history:
                close_epoch(0, None)
            for number in range(loop.history[-1].epoch + 1 if loop.history else 1, settings.epochs + 1):
                close_epoch(number, loop.epoch(learn, steps, progress, unfinished))
    model.to(memory_format=torch.contiguous_format).load_state_dict(loop.best_state)
    if unfinished:
        unfinished.remove()
    return TrainResult(loop.best_epoch, tuple(loop.history), loop.best_state, teacher)


def _split_off_validation(data: Data, settings: TrainSettings) -> tuple[Indices, Indices]:
    """The indices of the training split to learn from, and those to validate on."""
    split = data.training
    if split.labels is None:
        raise DataError(f"data '{data.spec}' has no labels to train on")
    count = max(1, round(settings.validation * len(split)))
    if count >= len(split):
        raise DataError(f"{len(split)} training samples leave none to learn from", "Use more data.")
    held_out = draw_indices(len(split), count, _VALIDATION_SEED, split.labels)
    return np.setdiff1d(np.arange(len(split)), held_out), held_out
