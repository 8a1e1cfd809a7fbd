"""One training: a model, and the state that changes from step to step."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from calibration.data import Data, Indices
from calibration.evaluation import Evaluation, logits_and_labels
from calibration.sampling import augmentation_for, crop_flip, normalised_black
from calibration.training.distillation import Distillation
from calibration.training.frozen_zeros import FrozenZeros
from calibration.training.mixed_precision import autocast, autocast_dtype
from calibration.training.settings import TrainSettings
from calibration.training.unfinished_training import Unfinished
from sparsegpt_core.errors import InputError, NumericsError
from sparsegpt_core.interrupts import defer_interrupts
from sparsegpt_core.network import from_arrays
from sparsegpt_core.progress import Progress

__all__ = ["Epoch", "Loop", "copy_state"]

_SAVED_ATTRIBUTES = ("done", "position", "losses", "seconds", "order", "best_state")
_NO_ORDER = torch.empty(0, dtype=torch.long)  # of the images in an epoch that has not begun


@dataclass(frozen=True)
class Epoch:
    """One epoch of the history.

    Example:
        >>> good, better = Epoch(1, 0.9, 0.05, 80.0, 0.7, 1.5), Epoch(2, 0.8, 0.01, 80.0, 0.6, 1.5)
        >>> max(good, better, key=lambda epoch: epoch.quality).epoch
        2
    """

    epoch: int
    """Counted from 1; 0 is the validation before the first step, which fine-tuning adds."""
    loss: float | None
    """Mean training loss; None for epoch 0."""
    learning_rate: float
    """Learning rate of the last step; 0 for epoch 0."""
    validation_top1: float
    """Top-1 accuracy on the validation images, in percent."""
    validation_loss: float
    """Mean cross-entropy on the validation images, in nats."""
    seconds: float
    """Duration of the training steps."""

    @property
    def quality(self) -> tuple[float, float]:
        """Sort key of the best epoch: the highest top-1, then the lowest validation loss."""
        return self.validation_top1, -self.validation_loss


class Loop:
    """A model, its optimiser, and the state that changes from step to step.

    Args:
        model: On ``device``.
        data: Labelled training images.
        settings: How to train.
        device: Where to compute.
        total: Steps of all epochs together.
        distillation: The teacher, if there is one.
        zeros: Weights that stay zero after every step.
    """

    def __init__(
        self,
        model: nn.Module,
        data: Data,
        settings: TrainSettings,
        device: torch.device,
        total: int,
        distillation: Distillation | None = None,
        zeros: FrozenZeros | None = None,
    ) -> None:
        self.model, self.split, self.settings, self.device, self.total = model, data.training, settings, device, total
        self.distillation = distillation
        self.augment = augmentation_for(data.spec) if settings.augment == "auto" else settings.augment
        if self.augment != "none" and data.inputs:
            raise InputError(
                f"`augment={self.augment}` changes images, and the data has inputs by name", "Leave it out."
            )
        self.background = normalised_black(data.mean, data.std)
        self.dtype = autocast_dtype(settings.precision, device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.dtype is torch.float16)
        self.optimizer = _optimizer(model, settings)
        if zeros:
            self.optimizer.register_step_post_hook(zeros.restore)
        self.scheduler = _scheduler(self.optimizer, settings, total)
        self.average = _average(model, settings.ema) if settings.ema else None
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.done, self.position = 0, 0  # steps in total, and in this epoch
        self.losses, self.seconds = 0.0, 0.0  # sums over this epoch
        self.order = _NO_ORDER
        self.history: list[Epoch] = []
        self.best_state: dict[str, Tensor] = {}

    @property
    def learned(self) -> nn.Module:
        """The network to validate and keep: the averaged one if ``ema`` is set."""
        return self.average.module if self.average else self.model

    def epoch(self, indices: Indices, steps: int, progress: Progress, unfinished: Unfinished | None) -> float:
        """Run one epoch over ``indices`` in random order, or finish an interrupted one; return its mean loss."""
        self.model.train(self.settings.mode == "train")
        with defer_interrupts():
            if not len(self.order):  # a new epoch, not an interrupted one
                self.order = torch.randperm(len(indices), generator=self.generator)
        size = self.settings.batch_size
        remaining = indices[self.order[self.position * size : steps * size].numpy()]
        started = time.perf_counter()
        for images, labels in self.split.batches(size, remaining):
            with defer_interrupts():
                self.losses += self.step(from_arrays(images), torch.from_numpy(labels))
                self.done, self.position = self.done + 1, self.position + 1
                self.seconds, started = self.seconds + time.perf_counter() - started, time.perf_counter()
            progress("train", self.done, self.total)
            if unfinished:
                unfinished.keep(self.state)
        return self.losses / steps

    def close_epoch(self, number: int, loss: float | None, validation: Evaluation) -> None:
        """Add an epoch to the history, and keep its weights if they are the best so far."""
        with defer_interrupts():
            self._add_epoch(number, loss, validation)

    def _add_epoch(self, number: int, loss: float | None, validation: Evaluation) -> None:
        before = max((epoch.quality for epoch in self.history), default=None)
        rate = self.optimizer.param_groups[0]["lr"] if number else 0.0
        self.history.append(Epoch(number, loss, rate, validation.top1, validation.loss, self.seconds))
        if before is None or self.history[-1].quality > before:
            self.best_state = copy_state(self.learned)
        self.position, self.losses, self.seconds, self.order = 0, 0.0, 0.0, _NO_ORDER

    @property
    def best_epoch(self) -> int:
        """The epoch of ``best_state``; the first one among equals."""
        return max(self.history, key=lambda epoch: epoch.quality).epoch

    def state(self) -> dict[str, Any]:
        """Return everything that the remaining steps depend on."""
        return {
            **{name: getattr(self, name) for name in _SAVED_ATTRIBUTES},
            **{name: part.state_dict() for name, part in self._parts().items()},
            "history": [asdict(epoch) for epoch in self.history],
            "generator": self.generator.get_state(),
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from a state that :meth:`state` returned."""
        for name in _SAVED_ATTRIBUTES:
            setattr(self, name, state[name])
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        self.history = [Epoch(**epoch) for epoch in state["history"]]
        self.generator.set_state(state["generator"])
        torch.set_rng_state(state["torch"])
        if state["cuda"] is not None:
            torch.cuda.set_rng_state(state["cuda"], self.device)

    def step(self, images: Tensor, labels: Tensor) -> float:
        """Take one step on images (N, C, H, W) and labels (N,); return its loss."""
        if self.augment != "none":
            images = crop_flip(images, self.background, self.augment == "crop-flip", self.generator)
        loss = self._loss(images, labels)
        if not math.isfinite(loss.item()):
            raise NumericsError(
                f"the training loss is {loss.item()} after {self.done} steps",
                "Lower `learning_rate`, or use `precision=fp32`.",
            )
        # The scaler keeps FP16 gradients from underflow; it is disabled in other precisions.
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        scale = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.scaler.get_scale() >= scale:  # else FP16 gradients overflowed and the step was skipped
            self.scheduler.step()
            if self.average:
                self.average.update_parameters(self.model)
        return loss.item()

    def _loss(self, images: Tensor, labels: Tensor) -> Tensor:
        with autocast(self.device, self.dtype):
            logits, truth = logits_and_labels(self.model, images, labels, self.device)
        loss = F.cross_entropy(logits.float(), truth, label_smoothing=self.settings.label_smoothing)
        if self.distillation is None:
            return loss
        with autocast(self.device, self.dtype), torch.no_grad():
            teacher_logits, _ = logits_and_labels(self.distillation.teacher, images, labels, self.device)
        return self.distillation.loss(loss, logits.float(), teacher_logits.float())

    def _parts(self) -> dict[str, Any]:
        """The parts that have a state dict."""
        names = ("model", "optimizer", "scheduler", "scaler", "average")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


def copy_state(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of a model's state dict, on the CPU and contiguous.

    Example:
        >>> {name: tuple(tensor.shape) for name, tensor in copy_state(nn.Linear(3, 2)).items()}
        {'weight': (2, 3), 'bias': (2,)}
    """
    return {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in model.state_dict().items()
    }


def _optimizer(model: nn.Module, settings: TrainSettings) -> Optimizer:
    rate, decay = settings.learning_rate, settings.weight_decay
    if settings.optimizer == "adamw":
        return AdamW(model.parameters(), lr=rate, weight_decay=decay)
    return SGD(model.parameters(), lr=rate, momentum=settings.momentum, weight_decay=decay, nesterov=True)


def _scheduler(optimizer: Optimizer, settings: TrainSettings, total: int) -> LRScheduler:
    if settings.schedule == "cosine":
        return CosineAnnealingLR(optimizer, total)
    # One step more than needed: OneCycleLR does not accept a total of 1.
    return OneCycleLR(optimizer, settings.learning_rate, total_steps=total + 1, cycle_momentum=False)


def _average(model: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average whose decay after t steps is at most (1 + t) / (10 + t)."""

    def update(averages: Any, values: Any, count: Any) -> None:
        steps = int(count)
        average = get_ema_multi_avg_fn(min(decay, (1 + steps) / (10 + steps)))  # type: ignore[no-untyped-call]
        average(averages, values, count)

    return AveragedModel(model, multi_avg_fn=update, use_buffers=True)
