"""Reads and writes weights, and checks that they fit a network.

May import ``network``, ``zoo``, ``files`` and below.
"""

from sparsegpt_core.checkpoints.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from sparsegpt_core.checkpoints.classes import count_classes
from sparsegpt_core.checkpoints.fit import check_fit, load_into
from sparsegpt_core.checkpoints.int8 import load_int8, save_int8
from sparsegpt_core.checkpoints.names import match_names

__all__ = [
    "Checkpoint",
    "check_fit",
    "count_classes",
    "load_checkpoint",
    "load_int8",
    "load_into",
    "match_names",
    "save_checkpoint",
    "save_int8",
]
