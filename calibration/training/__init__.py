"""Trains a network: the loop, its settings, distillation, and resumption after a kill.

May import ``evaluation``, ``sampling``, ``data`` and ``sparsegpt_core``.
"""

from calibration.training.distillation import Distillation
from calibration.training.frozen_zeros import FrozenZeros, parse_pruning_metadata
from calibration.training.loop import Epoch, copy_state
from calibration.training.mixed_precision import autocast, autocast_dtype, reproducible
from calibration.training.settings import TrainSettings, check_setting
from calibration.training.trainer import AfterEpoch, TrainResult, ignore_history, train
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
    "check_setting",
    "copy_state",
    "ignore_history",
    "parse_pruning_metadata",
    "reproducible",
    "train",
]
