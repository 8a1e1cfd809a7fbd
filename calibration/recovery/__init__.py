"""Recovers accuracy after pruning: fine-tuning, block reconstruction, batch norm statistics.

May import every other room of ``calibration``, and ``sparsegpt_core``.
"""

from calibration.recovery.batch_norm import reestimate_batchnorm
from calibration.recovery.finetuning import finetune, finetune_settings
from calibration.recovery.reconstruction import ReconstructResult, ReconstructSettings, reconstruct

__all__ = [
    "ReconstructResult",
    "ReconstructSettings",
    "finetune",
    "finetune_settings",
    "reconstruct",
    "reestimate_batchnorm",
]
