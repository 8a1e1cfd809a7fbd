"""Where layers get their inputs from: a walk over the traced network, or forward passes that stop at the layer."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.fx import Node

from sparsegpt_core.activations.demand import LayerDemand, Statistics
from sparsegpt_core.activations.forward_capture import ForwardCapture
from sparsegpt_core.activations.graph_walk import GraphWalk
from sparsegpt_core.activations.memory_plan import plan_memory
from sparsegpt_core.activations.spill_store import ActivationStore
from sparsegpt_core.errors import InputError, ModelError
from sparsegpt_core.execution import Resources, available_memory, device_of, used_memory
from sparsegpt_core.network import Layer, Program, trace
from sparsegpt_core.progress import timed

__all__ = ["Source", "open_source"]

_GIB = 1 << 30
_DEFAULT_FREE_FRACTION = 0.8  # of the free memory that a run takes without a limit
_USABLE_FRACTION = 0.9  # of a limit; an allocator cannot use the rest


class Source(Protocol):
    """Delivers the inputs of one layer after the other, in running order."""

    fallback: str
    """Why every layer costs a forward pass of its own. Empty: it does not."""

    @property
    def spilled_bytes(self) -> int:
        """Bytes written to disk so far."""

    def compares(self, layer: Layer) -> bool:
        """Return whether the layer's inputs in the dense network may differ from those in the pruned one."""

    def gather(self, layer: Layer, statistics: Statistics) -> None:
        """Add all inputs of the layer, and its dense outputs where they were asked for and differ."""

    def set_value(self, tensor: Tensor, value: Tensor) -> None:
        """Use ``value`` in place of a parameter or buffer of the pruned network from here on."""


@contextlib.contextmanager
def open_source(
    model: nn.Module,
    batches: Sequence[Tensor],
    demand: LayerDemand,
    resources: Resources,
    seconds: dict[str, float],
) -> Iterator[Source]:
    """Trace the network, or fall back to forward passes that stop at the layer.

    Args:
        model: In eval mode.
        batches: Calibration samples (N, C, H, W) of this process.
        demand: The solver's request.
        resources: Memory limit, scratch folder, and whether to trace.
        seconds: Receives the time of ``trace``, ``forward`` and ``statistics``.

    Raises:
        InputError: The memory limit is too small.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from sparsegpt_core.execution import DEFAULT
        >>> from sparsegpt_core.network import plan_layers
        >>> from sparsegpt_core.settings import PruneSettings
        >>> from sparsegpt_core.statistics import LayerStatistics
        >>> model = nn.Sequential(nn.Conv2d(4, 8, 1), nn.Conv2d(8, 8, 1), nn.Flatten(), nn.Linear(72, 2)).eval()
        >>> batches = [torch.randn(5, 4, 3, 3)]
        >>> layers = [layer for layer in plan_layers(model, batches[0], PruneSettings()) if layer.reason is None]
        >>> statistics = LayerStatistics(layers[0].prunable)
        >>> with torch.no_grad(), open_source(model, batches, LayerDemand(layers, 5), DEFAULT, {}) as source:
        ...     source.gather(layers[0], statistics)
        >>> layers[0].name, statistics.moments().positions
        ('1', 45)
    """
    device = device_of(model)
    available = available_memory(device)
    program, why = None, "asked for"
    if resources.traced:
        with timed(seconds, "trace"):
            program, why = _try_to_trace(model, batches[0][:2].to(device), demand.layers)
    if program is None:
        capture = ForwardCapture(model, batches, demand, seconds, why)
        try:
            yield capture
        except BaseException:
            capture.restore()
            raise
        return
    plan = plan_memory(program, demand, batches, device)
    limit = resources.memory_limit or used_memory(device) + int(_DEFAULT_FREE_FRACTION * available)
    taken = used_memory(device) + plan.working_bytes
    budget = int(_USABLE_FRACTION * limit) - taken
    if budget < 0 and resources.memory_limit:
        needed = taken / _USABLE_FRACTION
        raise InputError(
            f"a memory limit of {limit / _GIB:.2f} GiB is too small: "
            f"{plan.largest_layer} needs about {needed / _GIB:.2f} GiB",
            "Raise `memory_limit`, or `exclude` that layer.",
        )
    scratch = resources.scratch or Path(tempfile.gettempdir())
    host_budget = int(_DEFAULT_FREE_FRACTION * available_memory(torch.device("cpu"))) // resources.world.size
    store: ActivationStore[tuple[Node, bool]] = ActivationStore(max(budget, 0), scratch, device, host_budget)
    try:
        yield GraphWalk(program, batches, demand, plan.chunk_samples, store, device, seconds)
    finally:
        store.close()


def _try_to_trace(model: nn.Module, sample: Tensor, layers: Sequence[Layer]) -> tuple[Program | None, str]:
    try:
        return trace(model, sample, layers), ""
    except ModelError as error:
        return None, str(error)
