"""Batches for networks with several inputs, with the interface of one tensor."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Union, cast

import torch
from torch import Tensor, nn

from sparsegpt_core.errors import InputError
from sparsegpt_core.named_inputs import Arrays, NamedInputs

__all__ = [
    "Batch",
    "Inputs",
    "as_tensors",
    "channels_last",
    "from_arrays",
    "have_same_shape",
    "split_batches",
    "spread",
    "tensors_of",
]

Batch = Union[Tensor, Sequence[Tensor]]
"""One input such as images (N, C, H, W), or a tuple with a tensor (N, ...) for each input."""


class Inputs:
    """The tensors of a batch, with the length, slices and ``to`` of one tensor.

    Raises:
        InputError: An item is not a tensor, or the tensors differ in their number of samples, the first axis.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        if not tensors or not all(isinstance(each, Tensor) for each in tensors):
            kinds = ", ".join(type(each).__name__ for each in tensors)
            raise InputError(f"a batch contains {kinds or 'nothing'}", "Give a tensor, or a tuple of tensors.")
        if any(each.dim() == 0 or len(each) != len(tensors[0]) for each in tensors):
            shapes = ", ".join(str(tuple(each.shape)) for each in tensors)
            raise InputError(f"the inputs of a batch have the shapes {shapes}", "The first axis of each is the batch.")
        self.tensors = tuple(tensors)

    def __len__(self) -> int:
        return len(self.tensors[0])

    def __getitem__(self, samples: slice) -> Inputs:
        return Inputs([each[samples] for each in self.tensors])

    def to(self, device: torch.device) -> Inputs:
        """Return the tensors on a device."""
        return Inputs([each.to(device) for each in self.tensors])

    @property
    def shape(self) -> torch.Size:
        """The shape of the first input."""
        return self.tensors[0].shape

    @property
    def device(self) -> torch.device:
        """The device of the first input."""
        return self.tensors[0].device


def as_tensors(batches: Sequence[Batch]) -> list[Tensor]:
    """Return batches that can be sliced, moved, and passed to a network within ``eval_mode``.

    Raises:
        InputError: A batch is neither a tensor nor several tensors with the same number of samples.

    Example:
        >>> import torch
        >>> (batch,) = as_tensors([(torch.ones(3, 2), torch.ones(3, 5))])
        >>> len(batch), [tuple(tensor.shape) for tensor in tensors_of(batch[:2])]
        (3, [(2, 2), (2, 5)])
    """
    if any(isinstance(each, Tensor) and each.dim() == 0 for each in batches):
        raise InputError("a batch is a single number", "The first axis of a batch is that of its samples.")
    # A batch of several tensors only needs the methods of Inputs.
    return [cast(Tensor, each if isinstance(each, (Tensor, Inputs)) else Inputs(each)) for each in batches]


def from_arrays(batch: Arrays) -> Tensor:
    """Return NumPy arrays as a batch, without a copy.

    Example:
        >>> import numpy as np
        >>> batch = from_arrays(NamedInputs({"images": np.ones((3, 1, 8, 8)), "vector": np.ones((3, 5))}))
        >>> [tuple(tensor.shape) for tensor in tensors_of(batch)]
        [(3, 1, 8, 8), (3, 5)]
    """
    if not isinstance(batch, NamedInputs):
        return torch.from_numpy(batch)
    tensors = [torch.from_numpy(values) for values in batch.arrays.values()]
    return tensors[0] if len(tensors) == 1 else as_tensors([tensors])[0]


def channels_last(batch: Tensor) -> Tensor:
    """Return images in the memory format in which convolutions are fastest (twice as fast on CPUs).

    Example:
        >>> channels_last(torch.ones(2, 3, 8, 8)).stride()
        (192, 1, 24, 3)
    """
    if isinstance(batch, Inputs):
        return as_tensors([[channels_last(each) for each in batch.tensors]])[0]
    return batch.to(memory_format=torch.channels_last) if batch.dim() == 4 else batch


def tensors_of(batch: Batch | Inputs) -> tuple[Tensor, ...]:
    """Return the tensor of every input.

    Example:
        >>> import torch
        >>> len(tensors_of(torch.ones(3, 2))), len(tensors_of((torch.ones(3, 2), torch.ones(3, 5))))
        (1, 2)
    """
    if isinstance(batch, Inputs):
        return batch.tensors
    return (batch,) if isinstance(batch, Tensor) else tuple(batch)


def have_same_shape(batches: Iterable[Tensor]) -> bool:
    """Return whether all samples of all batches have the same shape.

    Example:
        >>> import torch
        >>> have_same_shape([torch.ones(4, 3), torch.ones(2, 3)]), have_same_shape([torch.ones(4, 3), torch.ones(4, 5)])
        (True, False)
    """
    return len({tuple(tensor.shape[1:] for tensor in tensors_of(batch)) for batch in batches}) <= 1


def spread(module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Pass the tensors of :class:`Inputs` to ``forward`` as separate arguments: a forward pre-hook."""
    return tensors_of(arguments[0]) if arguments and isinstance(arguments[0], Inputs) else arguments


def split_batches(batches: Sequence[Tensor], first: int, at: int) -> list[Tensor]:
    """Cut the batches so that one of them starts at sample ``at``.

    Args:
        batches: Batches (N, ...).
        first: Index of the first sample.
        at: Index to cut at; an index in no batch leaves the batches whole.

    Example:
        >>> import torch
        >>> [len(batch) for batch in split_batches([torch.ones(4, 1), torch.ones(4, 1)], 0, 6)]
        [4, 2, 2]
    """
    cut: list[Tensor] = []
    for batch in batches:
        inside = at - first
        cut += [batch[:inside], batch[inside:]] if 0 < inside < len(batch) else [batch]
        first += len(batch)
    return cut
