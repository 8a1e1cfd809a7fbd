"""The inputs of one layer, by a forward pass that stops there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from sparsegpt_core.layout import device_of
from sparsegpt_core.selection import Layer

__all__ = ["layer_inputs"]


class _Stop(Exception):
    """Unwinds a forward pass; never leaves this module."""


def layer_inputs(model: nn.Module, layer: Layer, batches: Sequence[Tensor]) -> Iterator[Tensor]:
    """Yield the layer's input for every batch and every call, running nothing behind its last call.

    Args:
        model: The network, in eval mode.
        layer: One of its layers, with the number of calls per forward pass.
        batches: Network inputs (N, C, H, W), on any device.
    """
    device = device_of(model)
    captured: list[Tensor] = []

    def capture(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        captured.append(inputs[0])
        if len(captured) == layer.calls:
            raise _Stop

    with layer.module.register_forward_pre_hook(capture):
        for batch in batches:
            captured.clear()
            try:
                with torch.inference_mode():
                    model(batch.to(device))
            except _Stop:
                yield from captured
