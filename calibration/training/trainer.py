"""Training a network, dense or with its zeros held; of all epochs the best is kept."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from calibration.data import Data, Indices, draw
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

__all__ = ["AfterEpoch", "Epoch", "TrainResult", "TrainSettings", "ignore", "train"]

AfterEpoch = Callable[[Sequence[Epoch]], None]
"""Called with the history after every epoch."""

_HELD_OUT_SEED = 0


@dataclass(frozen=True, eq=False)
class TrainResult:
    """``best_state`` is the state dict, on the CPU, after ``best_epoch``, which is counted from 1.

    ``teacher`` is how a teacher does on what the epochs are validated on.
    """

    best_epoch: int
    history: tuple[Epoch, ...]
    best_state: dict[str, Tensor]
    teacher: Evaluation | None = None

    @property
    def best(self) -> Epoch:
        """The line of ``best_epoch``."""
        return next(epoch for epoch in self.history if epoch.epoch == self.best_epoch)


def ignore(history: Sequence[Epoch]) -> None:
    """Ignore the history: the default."""


def train(
    model: nn.Module,
    data: Data,
    settings: TrainSettings,
    progress: Progress = silent,
    unfinished: Unfinished | None = None,
    after_epoch: AfterEpoch = ignore,
    *,
    zeros: FrozenZeros | None = None,
    distillation: Distillation | None = None,
    from_zero: bool = False,
) -> TrainResult:
    """Train a model on the training split and leave it with the weights of its best epoch.

    The best epoch is the one with the highest top-1 (of equals the lowest loss) on a share held out of the
    training split: the evaluation split is never looked at. Whatever the seed it is the same share, so that a network
    that goes on from another's weights is judged by images that neither learned from.
    A last batch that is not full is left out.
    On one machine the same seed gives the same weights; the caller's random state is not touched.

    Args:
        model: Images (N, C, H, W) to logits (N, classes); moved to the device and trained in place.
        data: Its training split must have labels.
        settings: How to train.
        progress: Called with ``"train"`` and counts of steps.
        unfinished: Where the training is kept while it is under way. What is found there is gone on with, to the same
            weights as without the interruption.
        after_epoch: Called with the history after every epoch.
        zeros: Weights of the model, on the device, that every step leaves at zero.
        distillation: What a teacher adds to the loss.
        from_zero: Also validate before any step, as epoch 0, which may be the best.

    Raises:
        DataError: There are no labels, or too few samples; or what was kept is damaged.
        ModelError: The model or the teacher does not fit the images.
        NumericsError: The loss became NaN or infinite.
    """
    learn, held_out = _hold_out(data, settings)
    device = find_device(settings.device)
    model.to(device).to(memory_format=torch.channels_last)
    steps = max(1, len(learn) // settings.batch_size)
    loop = Loop(model, data, settings, device, steps * settings.epochs, distillation, zeros)

    def validate(network: nn.Module) -> Evaluation:
        return score(network, data.training.batches(settings.batch_size, held_out), len(held_out), device)

    def close(number: int, loss: float | None) -> None:
        loop.close_epoch(number, loss, validate(loop.learned))
        after_epoch(loop.history)

    with contextlib.ExitStack() as stack:
        stack.enter_context(reproducible(settings.seed, device))
        teacher = None
        if distillation:
            distillation.teacher.to(device).to(memory_format=torch.channels_last)
            stack.enter_context(eval_mode(distillation.teacher))
            teacher = validate(distillation.teacher)
        if unfinished and (state := unfinished.load()[0]):
            loop.load_state(state)
        progress("train", loop.done, loop.total)
        if from_zero and not loop.history:
            close(0, None)
        for number in range(loop.history[-1].epoch + 1 if loop.history else 1, settings.epochs + 1):
            close(number, loop.epoch(learn, steps, progress, unfinished))
    model.to(memory_format=torch.contiguous_format).load_state_dict(loop.best_state)
    if unfinished:
        unfinished.remove()
    return TrainResult(loop.best_epoch, tuple(loop.history), loop.best_state, teacher)


def _hold_out(data: Data, settings: TrainSettings) -> tuple[Indices, Indices]:
    """The indices to learn from, and the share to validate on."""
    split = data.training
    if split.labels is None:
        raise DataError(f"data '{data.spec}' has no labels to train on")
    count = max(1, round(settings.validation * len(split)))
    if count >= len(split):
        raise DataError(f"{len(split)} training samples leave none to learn from", "Use more data, or less validation.")
    held_out = draw(len(split), count, _HELD_OUT_SEED, split.labels)
    return np.setdiff1d(np.arange(len(split)), held_out), held_out
