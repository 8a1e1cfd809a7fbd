"""Batches for networks with several inputs, handled as the one tensor is that other networks take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Union, cast

import torch
from torch import Tensor, nn

from sparsegpt_core.errors import InputError

__all__ = ["Batch", "Inputs", "as_tensors", "split_batches", "spread", "tensors_of"]

Batch = Union[Tensor, Sequence[Tensor]]


"""One input such as images (N, C, H, W); or a tuple with a tensor for each input, N samples along their first axes."""


class Inputs:
    """The tensors of a batch; their number of samples, slices of samples and moves are those of one tensor.

    Raises:
        InputError: They are not tensors that all hold the same number of samples along their first axis.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        if not tensors or not all(isinstance(each, Tensor) for each in tensors):
            kinds = ", ".join(type(each).__name__ for each in tensors)
            raise InputError(f"a batch holds {kinds or 'nothing'}", "Give a tensor, or a tuple of tensors.")
        if any(each.dim() == 0 or len(each) != len(tensors[0]) for each in tensors):
            shapes = ", ".join(str(tuple(each.shape)) for each in tensors)
            raise InputError(f"the inputs of a batch have the shapes {shapes}", "The first axis of each is the batch.")
        self.tensors = tuple(tensors)

    def __len__(self) -> int:
        return len(self.tensors[0])

    def __getitem__(self, samples: slice) -> Inputs:
        return Inputs([each[samples] for each in self.tensors])

    def to(self, device: torch.device) -> Inputs:
        """Return them on the device."""
        return Inputs([each.to(device) for each in self.tensors])

    @property
    def shape(self) -> torch.Size:
        """The shape of the first input."""
        return self.tensors[0].shape

    @property
    def device(self) -> torch.device:
        """Where the first input is."""
        return self.tensors[0].device


def as_tensors(batches: Sequence[Batch]) -> list[Tensor]:
    """Return batches that may be sliced, moved and given to a network that :func:`spread` listens to.

    Raises:
        InputError: A batch is neither a tensor nor tensors with as many samples each.
    """
    # Nothing between here and the network asks more of a batch than Inputs can do.
    return [cast(Tensor, each if isinstance(each, (Tensor, Inputs)) else Inputs(each)) for each in batches]


def tensors_of(batch: Batch | Inputs) -> tuple[Tensor, ...]:
    """Return the tensor of every input."""
    if isinstance(batch, Inputs):
        return batch.tensors
    return (batch,) if isinstance(batch, Tensor) else tuple(batch)


def spread(module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Hand the tensors of :class:`Inputs` to ``forward`` one by one: a hook that runs before it."""
    return tensors_of(arguments[0]) if arguments and isinstance(arguments[0], Inputs) else arguments


def split_batches(batches: Sequence[Tensor], first: int, at: int) -> list[Tensor]:
    """Cut the batch that holds sample ``at`` in two there; ``first`` is the index of the first sample of all."""
    cut: list[Tensor] = []
    for batch in batches:
        inside = at - first
        cut += [batch[:inside], batch[inside:]] if 0 < inside < len(batch) else [batch]
        first += len(batch)
    return cut
