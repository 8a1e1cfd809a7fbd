"""Knows the machine: devices, memory, processes, and what to do when the memory is full.

May import ``errors``, ``progress``, ``torchrun`` and ``text``.
"""

from sparsegpt_core.execution.devices import device_of, find_device, sum_precision
from sparsegpt_core.execution.distributed import ALONE, World, join_world, speaks_for_all
from sparsegpt_core.execution.memory import available_memory, peak_memory, used_memory
from sparsegpt_core.execution.parallel import each, spans, workers
from sparsegpt_core.execution.resources import DEFAULT, Resources, full_precision
from sparsegpt_core.execution.smaller_batches import run_in_halves, with_smaller_batches

__all__ = [
    "ALONE",
    "DEFAULT",
    "Resources",
    "World",
    "available_memory",
    "device_of",
    "each",
    "find_device",
    "full_precision",
    "join_world",
    "peak_memory",
    "run_in_halves",
    "spans",
    "speaks_for_all",
    "sum_precision",
    "used_memory",
    "with_smaller_batches",
    "workers",
]
