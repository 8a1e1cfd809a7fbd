"""Training settings: the optimiser, its schedule, the precision, and the augmentation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from calibration.sampling import AUGMENTATIONS
from sparsegpt_core.errors import InputError

__all__ = ["PRECISIONS", "TrainSettings", "check_setting"]

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
"""The dtype of autocast by the name of a precision; None: no autocast."""


@dataclass(frozen=True)
class TrainSettings:
    """How to train. Nothing here touches the device: :func:`~calibration.training.train` checks that it exists.

    Raises:
        InputError: A value is out of range.

    Example:
        >>> TrainSettings(epochs=2, optimizer="adamw", learning_rate=1e-3).schedule
        'one-cycle'
    """

    epochs: int = 10
    """Passes over the training images."""
    batch_size: int = 128
    """Images per step."""
    learning_rate: float = 0.05
    """The highest learning rate of the schedule."""
    momentum: float = 0.9
    """Momentum of SGD. AdamW keeps PyTorch's default betas."""
    weight_decay: float = 5e-4
    """Weight decay of every parameter."""
    optimizer: str = "sgd"
    """``sgd`` (with Nesterov momentum) or ``adamw``."""
    schedule: str = "one-cycle"
    """``one-cycle`` (up for 30 % of the steps, then down) or ``cosine`` (down)."""
    precision: str = "auto"
    """``fp32``, ``bf16``, ``fp16``, or ``auto``: the fastest one on the device."""
    label_smoothing: float = 0.0
    """Share of the target probability that is spread over all classes."""
    ema: float = 0.0
    """Decay of the weights' exponential moving average, which is validated and kept in place of the weights; 0: off."""
    mode: str = "train"
    """``train``, or ``eval``: batch norms use their running statistics, and dropout is off."""
    augment: str = "auto"
    """``none``, ``crop``, ``crop-flip``, or ``auto``: the one that suits the data set."""
    validation: float = 0.1
    """Share of the training split that chooses the best epoch. It does not depend on ``seed``."""
    seed: int = 0
    """Seed of the image order, the augmentation and dropout."""
    device: str = "cpu"
    """A PyTorch device, such as ``cpu`` or ``cuda:0``."""

    def __post_init__(self) -> None:
        check_setting("epochs", self.epochs, self.epochs >= 1, "at least 1")
        check_setting("batch_size", self.batch_size, self.batch_size >= 1, "at least 1")
        check_setting("learning_rate", self.learning_rate, 0 < self.learning_rate < math.inf, "positive")
        # Nesterov momentum is not defined without momentum.
        check_setting("momentum", self.momentum, 0 < self.momentum < 1, "between 0 and 1")
        check_setting("weight_decay", self.weight_decay, 0 <= self.weight_decay < math.inf, "0 or more")
        check_setting("label_smoothing", self.label_smoothing, 0 <= self.label_smoothing < 1, "from 0 to below 1")
        check_setting("ema", self.ema, 0 <= self.ema < 1, "from 0 to below 1")
        check_setting("validation", self.validation, 0 < self.validation < 1, "between 0 and 1")
        check_setting("seed", self.seed, 0 <= self.seed < 2**32, "from 0 to 4294967295")
        choices = {
            "optimizer": ("sgd", "adamw"),
            "schedule": ("one-cycle", "cosine"),
            "precision": ("auto", *PRECISIONS),
            "mode": ("train", "eval"),
            "augment": ("auto", *AUGMENTATIONS),
        }
        for name, known in choices.items():
            check_setting(name, getattr(self, name), getattr(self, name) in known, f"one of {', '.join(known)}")


def check_setting(name: str, value: object, valid: bool, requirement: str) -> None:
    """Raise an error that names a setting, unless its value is valid.

    Args:
        name: The setting, as Python spells it.
        value: Its value.
        valid: Whether the value may be used.
        requirement: The valid values, to follow "It must be".

    Raises:
        InputError: The value is not valid.

    Example:
        >>> check_setting("epochs", 3, 3 >= 1, "at least 1")
        >>> check_setting("epochs", 0, 0 >= 1, "at least 1")
        Traceback (most recent call last):
        sparsegpt_core.errors.InputError: `epochs` is 0
    """
    if not valid:
        raise InputError(f"`{name}` is {value}", f"It must be {requirement}.")
