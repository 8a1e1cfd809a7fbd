"""How to train: the optimiser and its schedule, the arithmetic, and what is made of the data."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from calibration.sampling import AUGMENTATIONS
from sparsegpt_core.errors import InputError
from sparsegpt_core.execution import find_device

__all__ = ["PRECISIONS", "TrainSettings", "require"]

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


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
    """Of SGD; AdamW has PyTorch's own."""
    weight_decay: float = 5e-4
    optimizer: str = "sgd"
    """``sgd`` (with Nesterov momentum) or ``adamw``."""
    schedule: str = "one-cycle"
    """``one-cycle`` (up for 30 % of the steps, then down) or ``cosine`` (down)."""
    precision: str = "auto"
    """``fp32``, ``bf16``, ``fp16``, or ``auto``: what the device computes fastest."""
    label_smoothing: float = 0.0
    ema: float = 0.0
    """Decay of the weights' exponential moving average, which is then what is validated and kept; 0: none."""
    mode: str = "train"
    """``train``, or ``eval``: with the running statistics of batch norms and without dropout, as it will be used."""
    augment: str = "auto"
    """``none``, ``crop``, ``crop-flip``, or ``auto``: what suits the data."""
    validation: float = 0.1
    """The share of the training split that is held out to choose the best epoch; no seed changes which it is."""
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        require("epochs", self.epochs, self.epochs >= 1, "at least 1")
        require("batch_size", self.batch_size, self.batch_size >= 1, "at least 1")
        require("learning_rate", self.learning_rate, 0 < self.learning_rate < math.inf, "positive")
        # Nesterov momentum is not defined without momentum.
        require("momentum", self.momentum, 0 < self.momentum < 1, "between 0 and 1")
        require("weight_decay", self.weight_decay, 0 <= self.weight_decay < math.inf, "0 or more")
        require("label_smoothing", self.label_smoothing, 0 <= self.label_smoothing < 1, "from 0 to below 1")
        require("ema", self.ema, 0 <= self.ema < 1, "from 0 to below 1")
        require("validation", self.validation, 0 < self.validation < 1, "between 0 and 1")
        require("seed", self.seed, 0 <= self.seed < 2**32, "from 0 to 4294967295")
        choices = {
            "optimizer": ("sgd", "adamw"),
            "schedule": ("one-cycle", "cosine"),
            "precision": ("auto", *PRECISIONS),
            "mode": ("train", "eval"),
            "augment": ("auto", *AUGMENTATIONS),
        }
        for name, known in choices.items():
            require(name, getattr(self, name), getattr(self, name) in known, f"one of {', '.join(known)}")
        find_device(self.device)


def require(name: str, value: object, condition: bool, wanted: str) -> None:
    """Raise :class:`~sparsegpt_core.errors.InputError` unless the condition holds."""
    if not condition:
        raise InputError(f"{name} is {value}", f"It must be {wanted}.")
