"""One walk over the traced network for all layers: every operation runs once, dense and pruned side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.fx.node import map_arg

from sparsegpt_core.activations.spill_store import ActivationStore
from sparsegpt_core.execution import each, workers
from sparsegpt_core.network import Layer, Program, tensors_of
from sparsegpt_core.progress import timed
from sparsegpt_core.statistics import LayerStatistics, SplitStatistics

__all__ = ["GraphWalk", "Values"]

Values = dict[tuple[Node, bool], Any]
"""What is known of one chunk of samples: the value of a node in the dense (True) or the pruned (False) network."""


class GraphWalk:
    """Delivers the statistics of one layer after the other, each with the layers before it pruned.

    The operations up to the next layer run chunk by chunk, so that most of their values never leave the cache;
    only what a later segment reads is kept. On the CPU every batch is one thread's. Both networks share what lies
    before the first pruned layer. A layer that runs several times sees all its inputs before it is solved: for
    these the chunk runs ahead with the dense weight, and again afterwards.

    Args:
        program: The traced network, from which only constants are read.
        batches: Calibration samples (N, C, H, W) on any device.
        chunk: How many of them run together.
        first: The index of the first of them in the whole calibration set.
        dense: Also run the dense network, for its outputs as targets.
        store: Keeps activations between segments.
        device: Where to run.
        seconds: Gets the time of ``forward`` and ``statistics``.
    """

    fallback = ""

    def __init__(
        self,
        program: Program,
        batches: Sequence[Tensor],
        *,
        chunk: int,
        first: int,
        dense: bool,
        store: ActivationStore[tuple[Node, bool]],
        device: torch.device,
        seconds: dict[str, float],
    ) -> None:
        self._program, self._dense, self._store, self._device = program, dense, store, device
        self._seconds = seconds
        self._batches: list[list[_Chunk]] = []
        number = 0
        for batch in batches:
            self._batches.append([])
            for start in range(0, len(batch), chunk):
                samples = batch[start : start + chunk]
                self._batches[-1].append(_Chunk(number, first, samples))
                number, first = number + 1, first + len(samples)
        self._order = {node: index for index, node in enumerate(program.steps)}
        self._last_reads = _last_reads(program)
        self._diverged = _diverged(program)
        # Convolutions, statistics and positions all want a pixel's channels side by side.
        counts_strides = any(node.target is torch.ops.aten.as_strided.default for node in program.steps)
        self._layout = torch.contiguous_format if counts_strides else torch.channels_last
        self._pruned: dict[Node, Tensor] = {}
        self._position = -1

    @property
    def spilled_bytes(self) -> int:
        """What was written to disk so far."""
        return self._store.spilled_bytes

    def compares(self, layer: Layer) -> bool:
        """Tell whether the layer's inputs in the dense network differ from those in the pruned one."""
        sites = self._program.sites[layer.name]
        return self._dense and any(_input(site) in self._diverged for site in sites)

    def gather(self, layer: Layer, statistics: LayerStatistics | SplitStatistics) -> None:
        """Run up to the layer and add its inputs, with the dense outputs where the two networks differ."""
        stop = self._order[self._program.sites[layer.name][0]]
        share = workers(len(self._batches), self._device)

        def gather(batch: list[_Chunk]) -> dict[str, float]:
            seconds: dict[str, float] = {}
            inputs = []
            for chunk in batch:
                with timed(seconds, "forward"):
                    values = self._advance(chunk, stop)
                    inputs += [(x, y, chunk.first) for x, y in self._observe(layer, values)]
                    self._store.put(chunk.number, values)
            with timed(seconds, "statistics"):
                statistics.add_all(inputs)
            return seconds

        for seconds in each(gather, self._batches, self._device, spare=True):
            for stage, value in seconds.items():
                self._seconds[stage] = self._seconds.get(stage, 0.0) + value / share
        self._position = stop

    def replace(self, parameter: Tensor, value: Tensor) -> None:
        """Go on with this value of a parameter or buffer in the pruned network."""
        for node, constant in self._program.constants.items():
            if constant is parameter:
                self._pruned[node] = value

    def _advance(self, chunk: _Chunk, stop: int) -> Values:
        """Run the operations up to ``stop``."""
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
        """Return the layer's inputs and, where the two networks differ, its dense outputs, call by call."""
        sites = self._program.sites[layer.name]
        compares = self.compares(layer)
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
        if self._dense and node in self._diverged and (node, True) not in values:
            values[node, True] = self._evaluate(node, values, dense=True)
        values[node, False] = self._evaluate(node, values, dense=False)

    def _evaluate(self, node: Node, values: Values, dense: bool) -> Any:
        def value(argument: Node) -> Any:
            if argument in self._program.constants:
                weight = None if dense else self._pruned.get(argument)
                return self._program.constants[argument] if weight is None else weight
            return values[argument, dense and (argument, True) in values]

        target: Any = node.target
        if target is torch.ops.aten.view.default:  # which knows no other memory format than the traced one
            target = torch.ops.aten.reshape.default
        return target(*map_arg(node.args, value), **map_arg(node.kwargs, value))


@dataclass(frozen=True)
class _Chunk:
    """Samples that run together, and the index of the first of them in the whole calibration set."""

    number: int
    first: int
    samples: Tensor


def _input(site: Node) -> Node:
    node = site.args[0]
    if not isinstance(node, Node):
        raise TypeError(f"{site} multiplies a constant")  # trace() found the weight in second place
    return node


def _last_reads(program: Program) -> dict[Node, list[Node]]:
    """For every operation, the values that no later one reads."""
    reader = {read: node for node in program.steps for read in node.all_input_nodes}
    last: dict[Node, list[Node]] = {}
    for read, node in reader.items():
        if read not in program.constants:
            last.setdefault(node, []).append(read)
    return last


def _diverged(program: Program) -> set[Node]:
    """The operations whose value differs between the dense and the pruned network."""
    diverged = {site for sites in program.sites.values() for site in sites}
    for node in program.steps:
        if not diverged.isdisjoint(node.all_input_nodes):
            diverged.add(node)
    return diverged
