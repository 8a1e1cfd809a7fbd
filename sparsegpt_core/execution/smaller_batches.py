"""A GPU whose memory is full gets smaller batches, and the user is told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from sparsegpt_core.execution.parallel import spans
from sparsegpt_core.progress import WARNINGS

__all__ = ["run_in_halves", "with_smaller_batches"]

Result = TypeVar("Result")


def run_in_halves(run: Callable[[Tensor], Tensor], batch: Tensor) -> Tensor:
    """Run a network on a batch, on its halves where the GPU's memory is full; log a warning that says so.

    Args:
        run: Gives one row for each sample.
        batch: The samples (N, ...).

    Raises:
        torch.OutOfMemoryError: The memory is full even with one sample.
    """
    try:
        return run(batch)
    except torch.OutOfMemoryError:
        if len(batch) == 1:
            raise
    # Out of the except clause, where the error no longer holds what the network had computed.
    torch.cuda.empty_cache()
    half = -(-len(batch) // 2)
    WARNINGS.warning("the GPU's memory is full with batches of %d: halved to %d", len(batch), half)
    return torch.cat([run_in_halves(run, part) for part in (batch[:half], batch[half:])])


def with_smaller_batches(
    run: Callable[[Sequence[Tensor]], Result], batches: Sequence[Tensor]
) -> tuple[Result, tuple[str, ...]]:
    """Run on batches, and from the start on ones of half the size while the GPU's memory is full.

    Args:
        run: Leaves no trace where it fails.
        batches: The samples, each (N, ...).

    Returns:
        What ``run`` gave, and a warning where batches were halved.

    Raises:
        torch.OutOfMemoryError: The memory is full even with one sample at a time.
    """
    size = given = max(map(len, batches))
    while True:
        try:
            found = run(batches)
        except torch.OutOfMemoryError:
            if size == 1:
                raise
        else:
            warning = f"the GPU's memory is full with batches of {given}: halved to {size}"
            return found, (warning,) if size < given else ()
        torch.cuda.empty_cache()
        size = -(-size // 2)
        batches = [batch[part] for batch in batches for part in spans(len(batch), size)]
