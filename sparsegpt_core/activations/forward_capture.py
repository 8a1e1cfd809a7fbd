"""Forward passes that stop at the layer: the fallback for networks that cannot be traced."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sparsegpt_core.activations.demand import LayerDemand, Statistics
from sparsegpt_core.execution import device_of
from sparsegpt_core.network import Call, Layer, record_calls, weight_key
from sparsegpt_core.progress import timed

__all__ = ["ForwardCapture", "layer_calls"]


class _Stop(Exception):
    """Ends a forward pass early. No caller sees it."""


class ForwardCapture:
    """Delivers the inputs of every layer by one forward pass for each layer and network.

    Args:
        model: The network, in eval mode. :meth:`set_value` changes it.
        batches: Calibration samples (N, C, H, W), on any device.
        demand: The solver's request. With ``wants_dense`` a copy of the network runs too.
        seconds: Receives the time of ``forward`` and ``statistics``.
        fallback: Why the network is not traced.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Sequence[Tensor],
        demand: LayerDemand,
        seconds: dict[str, float],
        fallback: str,
    ) -> None:
        self.fallback = fallback
        self._model, self._batches, self._first_sample, self._seconds = model, batches, demand.first_sample, seconds
        self._dense = copy.deepcopy(model) if demand.wants_dense else None
        self._values_before: list[tuple[Tensor, Tensor]] = []

    @property
    def spilled_bytes(self) -> int:
        """Zero: no activation waits here, so none is written to disk."""
        return 0

    @property
    def _reference(self) -> nn.Module | None:
        """The dense network, from the first change on: before that its activations are the pruned network's."""
        return self._dense if self._values_before else None

    def compares(self, layer: Layer) -> bool:
        """Return whether the layer's inputs in the dense network may differ from those in the pruned one."""
        return self._reference is not None

    def gather(self, layer: Layer, statistics: Statistics) -> None:
        """Add the layer's inputs, with its dense outputs where they were asked for and differ."""
        first, reference = self._first_sample, self._reference
        if reference is not None:
            dense_weight = reference.get_parameter(weight_key(layer.name, dict(reference.named_parameters())))
        for batch in self._batches:
            with timed(self._seconds, "forward"):
                inputs = [x for x, _ in layer_calls(self._model, layer.prunable.weight, layer.calls, batch)]
                outputs: list[Tensor | None] = [None] * layer.calls
                if reference is not None:
                    outputs = [y for _, y in layer_calls(reference, dense_weight, layer.calls, batch, run_last=True)]
            with timed(self._seconds, "statistics"):
                calls = zip(inputs, outputs, strict=True)
                statistics.add_all((*layer.by_sample(x, y, len(batch)), first) for x, y in calls)
            first += len(batch)

    def set_value(self, tensor: Tensor, value: Tensor) -> None:
        """Use ``value`` in place of a parameter or buffer of the network from here on."""
        self._values_before.append((tensor, tensor.detach().to("cpu", copy=True)))
        tensor.copy_(value)

    def restore(self) -> None:
        """Undo every :meth:`set_value`."""
        for tensor, value in reversed(self._values_before):
            tensor.copy_(value)


def layer_calls(
    model: nn.Module, weight: Tensor, calls: int, batch: Tensor, run_last: bool = False
) -> list[tuple[Tensor, Tensor | None]]:
    """Return input and output of every call that multiplies by ``weight``. The forward pass ends with the last call.

    Args:
        model: The network, in eval mode.
        weight: The parameter itself.
        calls: Number of such calls in a forward pass.
        batch: Inputs (N, C, H, W), on any device.
        run_last: Run the last call too. Otherwise its output is None.
    """
    inputs: list[Tensor] = []
    outputs: list[Tensor | None] = []

    def kept(value: Tensor) -> Tensor:
        return value.clone() if calls > 1 else value  # operations between the calls may write in place

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
