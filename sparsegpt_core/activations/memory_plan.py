"""How many samples run together, and how much memory that and the solver need."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsegpt_core.activations.demand import LayerDemand
from sparsegpt_core.execution import workers
from sparsegpt_core.network import Layer, Program

__all__ = ["MemoryPlan", "plan_memory"]

# Bytes of a chunk's largest value. On the CPU an allocator reuses such blocks and half a cache contains one.
_CHUNK_BYTES = {"cpu": 32 << 20}
_CHUNK_BYTES_ELSEWHERE = 1 << 30
_VALUES_PER_THREAD = 4  # values of a batch, as large as its largest, that a thread keeps at a time

# Bytes that a solve needs.
_BYTES_PER_HESSIAN_ENTRY = 22  # H (d, d)
_ADMM_BYTES_PER_HESSIAN_ENTRY = 44  # the same with ADMM
_HELD_OUT_BYTES_PER_HESSIAN_ENTRY = 16  # in addition, for H and G of the held-out and of all samples
_BYTES_PER_WEIGHT = 64  # W (K, d)
_BYTES_PER_POSITION_ENTRY = 80  # kept positions (n, d), in place of H


@dataclass(frozen=True)
class MemoryPlan:
    """How many samples run together, and the memory that takes besides waiting activations."""

    chunk_samples: int
    """Samples that run together."""
    working_bytes: int
    """Bytes for the largest solve and for running operations."""
    largest_layer: str
    """Name of the layer whose solve needs most memory."""


def plan_memory(program: Program, demand: LayerDemand, batches: Sequence[Tensor], device: torch.device) -> MemoryPlan:
    """Choose how many samples run together, and estimate the memory for that and for the largest solve."""
    batch, threads = max(map(len, batches)), workers(len(batches), device)
    chunk = max(1, min(batch, _CHUNK_BYTES.get(device.type, _CHUNK_BYTES_ELSEWHERE) // program.sample_bytes))
    if program.batch_size:
        chunk = program.batch_size
    largest = max(demand.layers, key=lambda layer: _solve_bytes(layer, demand))
    running = _VALUES_PER_THREAD * threads * batch * program.sample_bytes
    return MemoryPlan(chunk, _solve_bytes(largest, demand) + running, largest.name)


def _solve_bytes(layer: Layer, demand: LayerDemand) -> int:
    rows, columns = layer.shape[0], math.prod(layer.shape[1:])
    weight_bytes = _BYTES_PER_WEIGHT * rows * columns
    if vectors := demand.kept_vectors(layer):
        return weight_bytes + _BYTES_PER_POSITION_ENTRY * demand.samples * vectors * columns
    uses_admm = columns <= demand.widest_admm_columns
    bytes_per_entry = _ADMM_BYTES_PER_HESSIAN_ENTRY if uses_admm else _BYTES_PER_HESSIAN_ENTRY
    if demand.held_out_samples:
        bytes_per_entry += _HELD_OUT_BYTES_PER_HESSIAN_ENTRY
    return weight_bytes + bytes_per_entry * columns**2
