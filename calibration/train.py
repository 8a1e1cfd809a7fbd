"""Training a dense baseline: SGD with Nesterov momentum, mixed precision, the best epoch kept."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR

from calibration.arrays import Data
from calibration.augment import AUGMENTATIONS, augmentation_for, black, crop_flip
from calibration.draw import Indices, draw
from calibration.evaluate import Evaluation, find_device, logits_of, score
from calibration.unfinished import Unfinished
from sparsegpt_core.errors import DataError, InputError, NumericsError
from sparsegpt_core.progress import Progress, silent

__all__ = ["Epoch", "TrainResult", "TrainSettings", "train"]

_COUNTERS = ("done", "position", "losses", "seconds", "order", "best_state")
_STATEFUL = ("model", "optimizer", "scheduler", "scaler")
_PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class TrainSettings:
    """How to train.

    Raises:
        InputError: A value is out of range, or the device is not there.
    """

    epochs: int = 10
    batch_size: int = 128
    learning_rate: float = 0.05
    """The largest of the schedule."""
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: str = "one-cycle"
    """``one-cycle`` (up for 30 % of the steps, then down) or ``cosine`` (down)."""
    precision: str = "auto"
    """``fp32``, ``bf16``, ``fp16``, or ``auto``: what the device computes fastest."""
    label_smoothing: float = 0.0
    augment: str = "auto"
    """``none``, ``crop``, ``crop-flip``, or ``auto``: what suits the data."""
    validation: float = 0.1
    """The share of the training split that is held out to choose the best epoch."""
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        _require("epochs", self.epochs, self.epochs >= 1, "at least 1")
        _require("batch_size", self.batch_size, self.batch_size >= 1, "at least 1")
        _require("learning_rate", self.learning_rate, 0 < self.learning_rate < math.inf, "positive")
        # Nesterov momentum is not defined without momentum.
        _require("momentum", self.momentum, 0 < self.momentum < 1, "between 0 and 1")
        _require("weight_decay", self.weight_decay, 0 <= self.weight_decay < math.inf, "0 or more")
        _require("label_smoothing", self.label_smoothing, 0 <= self.label_smoothing < 1, "from 0 to below 1")
        _require("validation", self.validation, 0 < self.validation < 1, "between 0 and 1")
        _require("seed", self.seed, 0 <= self.seed < 2**32, "from 0 to 4294967295")
        choices = {
            "schedule": ("one-cycle", "cosine"),
            "precision": ("auto", *_PRECISIONS),
            "augment": ("auto", *AUGMENTATIONS),
        }
        for name, known in choices.items():
            _require(name, getattr(self, name), getattr(self, name) in known, f"one of {', '.join(known)}")
        find_device(self.device)


@dataclass(frozen=True)
class Epoch:
    """One line of the history: mean training loss, last learning rate, validation top-1 in percent."""

    epoch: int
    loss: float
    learning_rate: float
    validation_top1: float
    validation_loss: float
    seconds: float


@dataclass(frozen=True, eq=False)
class TrainResult:
    """``best_state`` is the state dict, on the CPU, after ``best_epoch`` (counted from 1)."""

    best_epoch: int
    history: tuple[Epoch, ...]
    best_state: dict[str, Tensor]


def train(
    model: nn.Module,
    data: Data,
    settings: TrainSettings,
    progress: Progress = silent,
    unfinished: Unfinished | None = None,
) -> TrainResult:
    """Train a model on the training split and leave it with the weights of its best epoch.

    The best epoch is the one with the highest top-1 (of equals the lowest loss) on a share held out of the
    training split: the evaluation split is never looked at. A last batch that is not full is left out.
    On one machine the same seed gives the same weights; the caller's random state is not touched.

    Args:
        model: Images (N, C, H, W) to logits (N, classes); moved to the device and trained in place.
        data: Its training split must have labels.
        settings: How to train.
        progress: Called with ``"train"`` and counts of steps.
        unfinished: Where the training is kept while it is under way. What is found there is gone on with, to the same
            weights as without the interruption.

    Raises:
        DataError: There are no labels, or too few samples; or what was kept is damaged.
        ModelError: The model does not fit the images.
        NumericsError: The loss became NaN or infinite.
    """
    learn, held_out = _hold_out(data, settings)
    device = find_device(settings.device)
    model.to(device).to(memory_format=torch.channels_last)
    steps = max(1, len(learn) // settings.batch_size)
    loop = _Loop(model, data, settings, device, steps * settings.epochs)
    with _reproducible(settings.seed, device):
        if unfinished and (state := unfinished.load()[0]):
            loop.load_state(state)
        progress("train", loop.done, loop.total)
        for number in range(len(loop.history) + 1, settings.epochs + 1):
            loss = loop.epoch(learn, steps, progress, unfinished)
            validation = score(model, data.training.batches(settings.batch_size, held_out), len(held_out), device)
            loop.close_epoch(number, loss, validation)
    best_state = loop.best_state
    model.to(memory_format=torch.contiguous_format).load_state_dict(best_state)
    if unfinished:
        unfinished.remove()
    return TrainResult(loop.best_epoch, tuple(loop.history), best_state)


class _Loop:
    """A model with all that changes from step to step."""

    def __init__(self, model: nn.Module, data: Data, settings: TrainSettings, device: torch.device, total: int) -> None:
        self.model, self.split, self.settings, self.device, self.total = model, data.training, settings, device, total
        self.augment = augmentation_for(data.spec) if settings.augment == "auto" else settings.augment
        self.background = black(data.mean, data.std)
        self.dtype = _precision(settings.precision, device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.dtype is torch.float16)
        self.optimizer = torch.optim.SGD(
            model.parameters(),
            lr=settings.learning_rate,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            nesterov=True,
        )
        self.scheduler = _scheduler(self.optimizer, settings, total)
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.done, self.position = 0, 0  # steps altogether, and in this epoch
        self.losses, self.seconds = 0.0, 0.0  # of this epoch
        self.order = torch.empty(0, dtype=torch.long)
        self.history: list[Epoch] = []
        self.best_state: dict[str, Tensor] = {}

    def epoch(self, indices: Indices, steps: int, progress: Progress, unfinished: Unfinished | None) -> float:
        """Run one epoch over ``indices`` in random order, or the rest of one; return the mean loss."""
        self.model.train()
        if not self.position:
            self.order = torch.randperm(len(indices), generator=self.generator)
        size = self.settings.batch_size
        rest = indices[self.order[self.position * size : steps * size].numpy()]
        started = time.perf_counter()
        for images, labels in self.split.batches(size, rest):
            self.losses += self.step(torch.from_numpy(images), torch.from_numpy(labels))
            self.done, self.position = self.done + 1, self.position + 1
            self.seconds, started = self.seconds + time.perf_counter() - started, time.perf_counter()
            progress("train", self.done, self.total)
            if unfinished:
                unfinished.keep(self.state)
        return self.losses / steps

    def close_epoch(self, number: int, loss: float, validation: Evaluation) -> None:
        """Note what came of an epoch, and its weights if they are the best."""
        before = max((_quality(epoch) for epoch in self.history), default=None)
        rate = self.optimizer.param_groups[0]["lr"]
        self.history.append(Epoch(number, loss, rate, validation.top1, validation.loss, self.seconds))
        if before is None or _quality(self.history[-1]) > before:
            self.best_state = _copy_state(self.model)
        self.position, self.losses, self.seconds = 0, 0.0, 0.0

    @property
    def best_epoch(self) -> int:
        """The epoch of ``best_state``: of equals the first."""
        return max(self.history, key=_quality).epoch

    def state(self) -> dict[str, Any]:
        """Everything that the rest of the training depends on."""
        return {
            **{name: getattr(self, name) for name in _COUNTERS},
            **{name: getattr(self, name).state_dict() for name in _STATEFUL},
            "history": [asdict(epoch) for epoch in self.history],
            "generator": self.generator.get_state(),
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state` gave."""
        for name in _COUNTERS:
            setattr(self, name, state[name])
        for name in _STATEFUL:
            getattr(self, name).load_state_dict(state[name])
        self.history = [Epoch(**epoch) for epoch in state["history"]]
        self.generator.set_state(state["generator"])
        torch.set_rng_state(state["torch"])
        if state["cuda"] is not None:
            torch.cuda.set_rng_state(state["cuda"], self.device)

    def step(self, images: Tensor, labels: Tensor) -> float:
        """Take one step; return its loss."""
        if self.augment != "none":
            images = crop_flip(images, self.background, self.augment == "crop-flip", self.generator)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None):
            logits, truth = logits_of(self.model, images, labels, self.device)
        loss = F.cross_entropy(logits.float(), truth, label_smoothing=self.settings.label_smoothing)
        if not math.isfinite(loss.item()):
            raise NumericsError(
                f"the training loss is {loss.item()} after {self.done} steps",
                "Use a smaller --learning-rate, or --precision fp32.",
            )
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        scale = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.scaler.get_scale() >= scale:  # else FP16 gradients overflowed and the step was left out
            self.scheduler.step()
        return loss.item()


def _quality(epoch: Epoch) -> tuple[float, float]:
    return epoch.validation_top1, -epoch.validation_loss


def _hold_out(data: Data, settings: TrainSettings) -> tuple[Indices, Indices]:
    """The indices to learn from, and the share to validate on."""
    split = data.training
    if split.labels is None:
        raise DataError(f"data '{data.spec}' has no labels to train on")
    count = max(1, round(settings.validation * len(split)))
    if count >= len(split):
        raise DataError(f"{len(split)} training samples leave none to learn from", "Use more data, or less validation.")
    held_out = draw(len(split), count, settings.seed, split.labels)
    return np.setdiff1d(np.arange(len(split)), held_out), held_out


def _scheduler(optimizer: torch.optim.Optimizer, settings: TrainSettings, total: int) -> LRScheduler:
    if settings.schedule == "cosine":
        return CosineAnnealingLR(optimizer, total)
    # One step more than there are: the schedule refuses a single one.
    return OneCycleLR(optimizer, settings.learning_rate, total_steps=total + 1, cycle_momentum=False)


def _precision(name: str, device: torch.device) -> torch.dtype | None:
    """What to autocast to, None for FP32."""
    if name != "auto":
        return _PRECISIONS[name]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if device.type == "cpu" and (torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()):
        return torch.bfloat16
    return None


@contextlib.contextmanager
def _reproducible(seed: int, device: torch.device) -> Iterator[None]:
    """Seed what layers such as dropout draw from, have cuDNN repeat itself, and put both back."""
    deterministic = torch.backends.cudnn.deterministic
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        torch.backends.cudnn.deterministic = True
        try:
            yield
        finally:
            torch.backends.cudnn.deterministic = deterministic


def _copy_state(model: nn.Module) -> dict[str, Tensor]:
    return {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in model.state_dict().items()
    }


def _require(name: str, value: object, condition: bool, wanted: str) -> None:
    if not condition:
        raise InputError(f"{name} is {value}", f"It must be {wanted}.")
