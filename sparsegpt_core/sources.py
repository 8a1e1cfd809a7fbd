"""Where layers get their inputs from: the sweep over the traced network, or forward passes that stop at the layer."""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.fx import Node

from sparsegpt_core.capture import Capture
from sparsegpt_core.errors import InputError, ModelError
from sparsegpt_core.held_out import SplitStatistics
from sparsegpt_core.layout import device_of
from sparsegpt_core.memory import available_memory, used_memory
from sparsegpt_core.parallel import workers
from sparsegpt_core.progress import timed
from sparsegpt_core.runtime import Runtime
from sparsegpt_core.selection import Layer
from sparsegpt_core.statistics import LayerStatistics
from sparsegpt_core.store import ActivationStore
from sparsegpt_core.sweep import Sweep
from sparsegpt_core.trace import Program, trace

__all__ = ["Source", "open_source"]

_GIB = 1 << 30
_DEFAULT_SHARE = 0.8  # of what is free, where no limit is given
_CHUNK_BYTES = {"cpu": 32 << 20}  # of a chunk's largest value: what an allocator reuses and a cache half holds
_CHUNK_BYTES_ELSEWHERE = 1 << 30
_USABLE = 0.9  # of a limit: the rest is for what an allocator cannot use
_VALUES_AT_ONCE = 4  # of a batch's largest value, in each thread
_SQUARE_BYTES, _MATRIX_BYTES = 22, 64  # of a solve, for every entry of (d, d) and of (K, d)
_ADMM_SQUARE_BYTES = 44
_ROW_BYTES = 80  # of a solve that keeps the positions, for every entry of them
_HELD_OUT_SQUARE_BYTES = 16  # more, for H and G over the held-out samples and over all


class Source(Protocol):
    """Delivers the inputs of one layer after the other, in running order."""

    fallback: str
    """Why every layer costs a forward pass of its own; empty where the sweep is used."""

    @property
    def spilled_bytes(self) -> int:
        """What was written to disk so far."""

    def compares(self, layer: Layer) -> bool:
        """Tell whether the layer's inputs in the dense network may differ from those in the pruned one."""

    def gather(self, layer: Layer, statistics: LayerStatistics | SplitStatistics) -> None:
        """Add all inputs of the layer."""

    def replace(self, parameter: Tensor, value: Tensor) -> None:
        """Go on with this value of a parameter or buffer in the pruned network."""


@contextlib.contextmanager
def open_source(
    model: nn.Module,
    batches: Sequence[Tensor],
    layers: Sequence[Layer],
    *,
    first: int,
    dense: bool,
    runtime: Runtime,
    seconds: dict[str, float],
    samples: int | None = None,
    admm_columns: int = 0,
    held_out: bool = False,
) -> Iterator[Source]:
    """Trace the network, or fall back to forward passes that stop at the layer.

    Args:
        model: In eval mode.
        batches: Calibration samples (N, C, H, W) of this process.
        layers: Those that will be asked for, in running order.
        first: The index of the first sample in the whole calibration set.
        dense: Also deliver the dense network's outputs.
        runtime: The resources.
        seconds: Gets the time of ``trace``, ``forward`` and ``statistics``.
        samples: How many there are in the whole calibration set, if layers that see few keep them as they are.
        admm_columns: The widest layers that ADMM will solve, which takes more memory.
        held_out: Whether moments will be gathered over held-out samples too.

    Raises:
        InputError: The memory limit is too small.
    """
    device = device_of(model)
    available = available_memory(device)
    program, why = None, "asked for"
    if runtime.traced:
        with timed(seconds, "trace"):
            program, why = _try_to_trace(model, batches[0][:2].to(device), layers)
    if program is None:
        capture = Capture(model, batches, first=first, dense=dense, seconds=seconds, fallback=why)
        try:
            yield capture
        except BaseException:
            capture.restore()
            raise
        return
    solves = {layer.name: _solve_bytes(layer, samples, admm_columns, held_out) for layer in layers}
    plan = _plan(program, solves, batches, device)
    limit = runtime.memory_limit or used_memory(device) + int(_DEFAULT_SHARE * available)
    taken = used_memory(device) + plan.working_bytes
    budget = int(_USABLE * limit) - taken
    if budget < 0 and runtime.memory_limit:
        needed = taken / _USABLE
        raise InputError(
            f"a memory limit of {limit / _GIB:.2f} GiB is too small: "
            f"{plan.largest} needs about {needed / _GIB:.2f} GiB",
            "Raise --memory-limit, or --exclude that layer.",
        )
    scratch = runtime.scratch or Path(tempfile.gettempdir())
    store: ActivationStore[tuple[Node, bool]] = ActivationStore(max(budget, 0), scratch, device)
    try:
        yield Sweep(
            program,
            batches,
            chunk=plan.chunk,
            first=first,
            dense=dense,
            store=store,
            device=device,
            seconds=seconds,
        )
    finally:
        store.close()


def _try_to_trace(model: nn.Module, sample: Tensor, layers: Sequence[Layer]) -> tuple[Program | None, str]:
    try:
        return trace(model, sample, layers), ""
    except ModelError as error:
        return None, str(error)


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
