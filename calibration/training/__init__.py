"""Trains a network: the loop, its settings, distillation, and resumption after a kill.

May import ``evaluation``, ``sampling``, ``data`` and ``sparsegpt_core``.
"""

from calibration.training.distillation import Distillation
from calibration.training.frozen_zeros import FrozenZeros, noted_pruning
from calibration.training.loop import Epoch, copy_state
from calibration.training.mixed_precision import autocast, autocast_dtype, reproducible
from calibration.training.settings import TrainSettings, require
from calibration.training.trainer import AfterEpoch, TrainResult, ignore, train
from calibration.training.unfinished_training import Unfinished

__all__ = [
    "AfterEpoch",
    "Distillation",
    "Epoch",
    "FrozenZeros",
    "TrainResult",
    "TrainSettings",
    "Unfinished",
    "autocast",
    "autocast_dtype",
    "copy_state",
    "ignore",
    "noted_pruning",
    "reproducible",
    "require",
    "train",
]
