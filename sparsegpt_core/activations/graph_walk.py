"""One walk over the traced network for all layers: every operation runs once, dense and pruned side by side."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.fx.node import map_arg

from sparsegpt_core.activations.demand import LayerDemand, Statistics
from sparsegpt_core.activations.spill_store import ActivationStore
from sparsegpt_core.execution import each, spans, workers
from sparsegpt_core.network import Layer, Program, tensors_of
from sparsegpt_core.progress import timed

__all__ = ["GraphWalk", "Values"]

Values = dict[tuple[Node, bool], Any]
"""Values of one chunk of samples, by node and by network: True is the dense one, False the pruned one."""


class GraphWalk:
    """Delivers the inputs of one layer after the other, with the layers before it pruned.

    The operations up to the next layer run chunk by chunk, so most of their values never leave the cache. Only values
    that a later segment reads are kept. On the CPU one thread runs a whole batch. Both networks share the operations
    before the first pruned layer. A layer that runs several times sees all its inputs before it is solved: each chunk
    runs ahead with the dense weight to collect them, and runs again afterwards with the pruned weight.

    Args:
        program: The traced network.
        batches: Calibration samples (N, C, H, W) on any device.
        demand: The solver's request. With ``wants_dense`` the dense network runs too.
        chunk_samples: Samples that run together.
        store: Keeps activations between segments.
        device: The device to run on.
        seconds: Receives the time of ``forward`` and ``statistics``.
    """

    fallback = ""

    def __init__(
        self,
        program: Program,
        batches: Sequence[Tensor],
        demand: LayerDemand,
        chunk_samples: int,
        store: ActivationStore[tuple[Node, bool]],
        device: torch.device,
        seconds: dict[str, float],
    ) -> None:
        self._program, self._wants_dense, self._store, self._device = program, demand.wants_dense, store, device
        self._seconds = seconds
        self._batches = _chunks(batches, demand.first_sample, chunk_samples)
        self._order = {node: index for index, node in enumerate(program.steps)}
        self._last_reads = _last_reads(program)
        self._diverged = _diverged(program)
        # Convolutions and statistics are fastest with the channels of a pixel side by side in memory.
        counts_strides = any(node.target is torch.ops.aten.as_strided.default for node in program.steps)
        self._layout = torch.contiguous_format if counts_strides else torch.channels_last
        self._pruned: dict[Node, Tensor] = {}
        self._position = -1

    @property
    def spilled_bytes(self) -> int:
        """Bytes written to disk so far."""
        return self._store.spilled_bytes

    def compares(self, layer: Layer) -> bool:
        """Return whether the layer's inputs in the dense network differ from those in the pruned one."""
        sites = self._program.sites.get(layer.name, ())
        return self._wants_dense and any(_input(site) in self._diverged for site in sites)

    def gather(self, layer: Layer, statistics: Statistics) -> None:
        """Run up to the layer and add its inputs, with its dense outputs where the two networks differ."""
        stop = self._order[self._program.sites[layer.name][0]]
        threads = workers(len(self._batches), self._device)

        def gather_batch(batch: list[_Chunk]) -> dict[str, float]:
            seconds: dict[str, float] = {}
            inputs = []
            for chunk in batch:
                with timed(seconds, "forward"):
                    values = self._advance(chunk, stop)
                    for x, y in self._observe(layer, values):
                        inputs.append((*layer.by_sample(x, y, len(chunk.samples)), chunk.first_sample))
                    self._store.put(chunk.number, values)
            with timed(seconds, "statistics"):
                statistics.add_all(inputs)
            return seconds

        for seconds in each(gather_batch, self._batches, self._device, spare=True):
            for stage, value in seconds.items():
                self._seconds[stage] = self._seconds.get(stage, 0.0) + value / threads
        self._position = stop

    def set_value(self, tensor: Tensor, value: Tensor) -> None:
        """Use ``value`` in place of a parameter or buffer of the pruned network from here on."""
        for node, constant in self._program.constants.items():
            if constant is tensor:
                self._pruned[node] = value

    def _advance(self, chunk: _Chunk, stop: int) -> Values:
        """Run the operations from the last layer up to ``stop``, and drop values that no later one reads."""
        if self._position < 0:
            tensors = tensors_of(chunk.samples.to(self._device))
            values: Values = {(node, False): self._laid(x) for node, x in zip(self._program.inputs, tensors)}
        else:
            values = self._store.take(chunk.number)
        for node in self._program.steps[max(self._position, 0) : stop]:
            self._run(node, values)
            for read in self._last_reads.get(node, ()):
                values.pop((read, True), None)
                values.pop((read, False), None)
        return values

    def _laid(self, x: Tensor) -> Tensor:
        return x.contiguous(memory_format=self._layout if x.dim() == 4 else torch.contiguous_format)

    def _observe(self, layer: Layer, values: Values) -> list[tuple[Tensor, Tensor | None]]:
        """Return for every call the layer's input and, where the two networks differ, its dense output."""
        sites = self._program.sites[layer.name]
        compares = self.compares(layer)
        # The calls between the first and the last run ahead on a copy of the values, with the dense weight.
        ahead, seen = dict(values), []
        for node in self._program.steps[self._order[sites[0]] : self._order[sites[-1]] + 1]:
            if node in sites:
                if compares:
                    ahead[node, True] = self._evaluate(node, ahead, dense=True)
                seen.append((ahead[_input(node), False], ahead.get((node, True))))
            if node is not sites[-1]:
                self._run(node, ahead)
        if compares:
            values[sites[0], True] = ahead[sites[0], True]
        return seen

    def _run(self, node: Node, values: Values) -> None:
        if self._wants_dense and node in self._diverged and (node, True) not in values:
            values[node, True] = self._evaluate(node, values, dense=True)
        values[node, False] = self._evaluate(node, values, dense=False)

    def _evaluate(self, node: Node, values: Values, dense: bool) -> Any:
        def value(argument: Node) -> Any:
            if argument in self._program.constants:
                weight = None if dense else self._pruned.get(argument)
                return self._program.constants[argument] if weight is None else weight
            return values[argument, dense and (argument, True) in values]

        target: Any = node.target
        if target is torch.ops.aten.view.default:  # view fails in another memory format than the traced one
            target = torch.ops.aten.reshape.default
        return target(*map_arg(node.args, value), **map_arg(node.kwargs, value))


@dataclass(frozen=True)
class _Chunk:
    """Samples that run together."""

    number: int
    """Key of the chunk's activations in the store."""
    first_sample: int
    """Index of the first sample in the whole calibration set."""
    samples: Tensor
    """Samples (N, C, H, W)."""


def _chunks(batches: Sequence[Tensor], first_sample: int, chunk_samples: int) -> list[list[_Chunk]]:
    """Cut every batch into chunks."""
    numbers, cut = itertools.count(), []
    for batch in batches:
        spans_of_batch = spans(len(batch), chunk_samples)
        cut.append([_Chunk(next(numbers), first_sample + span.start, batch[span]) for span in spans_of_batch])
        first_sample += len(batch)
    return cut


def _input(site: Node) -> Node:
    node = site.args[0]
    if not isinstance(node, Node):
        raise TypeError(f"{site} multiplies a constant")  # trace() found the weight in second place
    return node


def _last_reads(program: Program) -> dict[Node, list[Node]]:
    """The values that each operation is the last to read."""
    reader = {read: node for node in program.steps for read in node.all_input_nodes}
    last: dict[Node, list[Node]] = {}
    for read, node in reader.items():
        if read not in program.constants:
            last.setdefault(node, []).append(read)
    return last


def _diverged(program: Program) -> set[Node]:
    """The operations whose values may differ between the dense and the pruned network."""
    diverged = {site for sites in program.sites.values() for site in sites}
    for node in program.steps:
        if not diverged.isdisjoint(node.all_input_nodes):
            diverged.add(node)
    return diverged
