"""How many samples run at a time, and the memory that needs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsegpt_core.execution import workers
from sparsegpt_core.network import Layer, Program

_CHUNK_BYTES = {"cpu": 32 << 20}  # of a chunk's largest value: what an allocator reuses and a cache half holds
_CHUNK_BYTES_ELSEWHERE = 1 << 30
_VALUES_AT_ONCE = 4  # of a batch's largest value, in each thread
_SQUARE_BYTES, _MATRIX_BYTES = 22, 64  # of a solve, for every entry of (d, d) and of (K, d)
_ADMM_SQUARE_BYTES = 44
_ROW_BYTES = 80  # of a solve that keeps the positions, for every entry of them
_HELD_OUT_SQUARE_BYTES = 16  # more, for H and G over the held-out samples and over all


@dataclass(frozen=True)
class _Plan:
    """Samples at a time, the bytes that work needs beside waiting activations, and the layer that needs them."""

    chunk: int
    working_bytes: int
    largest: str


def _plan(program: Program, solves: dict[str, int], batches: Sequence[Tensor], device: torch.device) -> _Plan:
    batch, at_once = max(map(len, batches)), workers(len(batches), device)
    chunk = max(1, min(batch, _CHUNK_BYTES.get(device.type, _CHUNK_BYTES_ELSEWHERE) // program.sample_bytes))
    largest = max(solves, key=solves.__getitem__)
    return _Plan(chunk, solves[largest] + _VALUES_AT_ONCE * at_once * batch * program.sample_bytes, largest)


def _solve_bytes(layer: Layer, samples: int | None, admm_columns: int, held_out: bool) -> int:
    rows, columns = layer.shape[0], math.prod(layer.shape[1:])
    if samples is not None and layer.few(samples):
        return _ROW_BYTES * samples * columns + _MATRIX_BYTES * rows * columns
    square = _ADMM_SQUARE_BYTES if columns <= admm_columns else _SQUARE_BYTES
    if held_out:
        square += _HELD_OUT_SQUARE_BYTES
    return square * columns**2 + _MATRIX_BYTES * rows * columns
