"""Where layers get their inputs from: the sweep over the traced network, or forward passes that stop at the layer."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from torch import Tensor, nn
from torch.fx import Node

from sparsegpt_core.activations.forward_capture import ForwardCapture
from sparsegpt_core.activations.graph_walk import GraphWalk
from sparsegpt_core.activations.memory_plan import _plan, _solve_bytes
from sparsegpt_core.activations.spill_store import ActivationStore
from sparsegpt_core.errors import InputError, ModelError
from sparsegpt_core.execution import Resources, available_memory, device_of, used_memory
from sparsegpt_core.network import Layer, Program, trace
from sparsegpt_core.progress import timed
from sparsegpt_core.statistics import LayerStatistics, SplitStatistics

__all__ = ["Source", "open_source"]

_GIB = 1 << 30
_DEFAULT_SHARE = 0.8  # of what is free, where no limit is given
_USABLE = 0.9  # of a limit: the rest is for what an allocator cannot use


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
    resources: Resources,
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
        resources: The resources.
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
    if resources.traced:
        with timed(seconds, "trace"):
            program, why = _try_to_trace(model, batches[0][:2].to(device), layers)
    if program is None:
        capture = ForwardCapture(model, batches, first=first, dense=dense, seconds=seconds, fallback=why)
        try:
            yield capture
        except BaseException:
            capture.restore()
            raise
        return
    solves = {layer.name: _solve_bytes(layer, samples, admm_columns, held_out) for layer in layers}
    plan = _plan(program, solves, batches, device)
    limit = resources.memory_limit or used_memory(device) + int(_DEFAULT_SHARE * available)
    taken = used_memory(device) + plan.working_bytes
    budget = int(_USABLE * limit) - taken
    if budget < 0 and resources.memory_limit:
        needed = taken / _USABLE
        raise InputError(
            f"a memory limit of {limit / _GIB:.2f} GiB is too small: "
            f"{plan.largest} needs about {needed / _GIB:.2f} GiB",
            "Raise --memory-limit, or --exclude that layer.",
        )
    scratch = resources.scratch or Path(tempfile.gettempdir())
    store: ActivationStore[tuple[Node, bool]] = ActivationStore(max(budget, 0), scratch, device)
    try:
        yield GraphWalk(
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
