"""The fallback for networks that cannot be traced: forward passes that stop at the layer."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sparsegpt_core.execution import device_of
from sparsegpt_core.network import Call, Layer, record_calls
from sparsegpt_core.progress import timed
from sparsegpt_core.statistics import LayerStatistics, SplitStatistics

__all__ = ["ForwardCapture", "layer_calls"]


class _Stop(Exception):
    """Unwinds a forward pass; never leaves this module."""


class ForwardCapture:
    """Delivers the inputs of every layer by one forward pass for each layer and network.

    Args:
        model: The network, in eval mode; :meth:`replace` changes it.
        batches: Calibration samples (N, C, H, W), on any device.
        first: The index of the first of them in the whole calibration set.
        dense: Also run the dense network, a copy, for its outputs as targets.
        seconds: Gets the time of ``forward`` and ``statistics``.
        fallback: Why the network is not swept.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Sequence[Tensor],
        *,
        first: int,
        dense: bool,
        seconds: dict[str, float],
        fallback: str = "asked for",
    ) -> None:
        self.fallback, self._changed = fallback, False
        self._model, self._batches, self._first, self._seconds = model, batches, first, seconds
        self._dense = copy.deepcopy(model) if dense else None
        self._replaced: list[tuple[Tensor, Tensor]] = []

    @property
    def spilled_bytes(self) -> int:
        """Nothing waits here, so nothing is written to disk."""
        return 0

    @property
    def _reference(self) -> nn.Module | None:
        """The dense network, once its activations may differ: nothing does before the first layer is pruned."""
        return self._dense if self._changed else None

    def compares(self, layer: Layer) -> bool:
        """Tell whether the layer's inputs in the dense network may differ from those in the pruned one."""
        return self._reference is not None

    def gather(self, layer: Layer, statistics: LayerStatistics | SplitStatistics) -> None:
        """Add the layer's inputs, with the dense outputs where asked for."""
        first = self._first
        for batch in self._batches:
            with timed(self._seconds, "forward"):
                inputs = [x for x, _ in layer_calls(self._model, layer.pruned.weight, layer.calls, batch)]
                outputs: list[Tensor | None] = [None] * layer.calls
                if (reference := self._reference) is not None:
                    weight = reference.get_parameter(f"{layer.name}.weight".lstrip("."))
                    outputs = [y for _, y in layer_calls(reference, weight, layer.calls, batch, run_last=True)]
            with timed(self._seconds, "statistics"):
                statistics.add_all((x, y, first) for x, y in zip(inputs, outputs, strict=True))
            first += len(batch)

    def replace(self, parameter: Tensor, value: Tensor) -> None:
        """Go on with this value of a parameter or buffer in the pruned network."""
        self._replaced.append((parameter, parameter.detach().to("cpu", copy=True)))
        parameter.copy_(value)
        self._changed = True

    def restore(self) -> None:
        """Give the network back what :meth:`replace` took."""
        for parameter, value in reversed(self._replaced):
            parameter.copy_(value)


def layer_calls(
    model: nn.Module, weight: Tensor, calls: int, batch: Tensor, run_last: bool = False
) -> list[tuple[Tensor, Tensor | None]]:
    """Return input and output of every call that multiplies by ``weight``; nothing behind the last one runs.

    Args:
        model: The network, in eval mode.
        weight: The parameter itself.
        calls: How many such calls a forward pass makes.
        batch: Inputs (N, C, H, W), on any device.
        run_last: Run the last call as well; otherwise its output is None.
    """
    inputs: list[Tensor] = []
    outputs: list[Tensor | None] = []

    def kept(value: Tensor) -> Tensor:
        return value.clone() if calls > 1 else value  # what runs between the calls may write in place

    def before(call: Call) -> None:
        if call.arguments["weight"] is weight:
            inputs.append(kept(call.arguments["input"]))
            if len(inputs) == calls and not run_last:
                outputs.append(None)
                raise _Stop

    def after(call: Call, output: Tensor) -> None:
        if call.arguments["weight"] is weight:
            outputs.append(kept(output))
            if len(outputs) == calls:
                raise _Stop

    with contextlib.suppress(_Stop), torch.inference_mode(), record_calls(before, after):
        model(batch.to(device_of(model)))
    return list(zip(inputs, outputs, strict=True))
