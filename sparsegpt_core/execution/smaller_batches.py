"""Smaller batches for a GPU whose memory is full, with a warning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from sparsegpt_core.execution.parallel import spans
from sparsegpt_core.progress import WARNINGS

__all__ = ["run_in_halves", "with_smaller_batches"]

Result = TypeVar("Result")


def run_in_halves(run: Callable[[Tensor], Result], batch: Tensor, join: Callable[[Any], Any] = torch.cat) -> Result:
    """Run a network on a batch, or on its halves if the GPU's memory is full. Halving logs a warning.

    Args:
        run: The network, (N, ...) -> (N, ...).
        batch: The samples (N, ...).
        join: Joins the outputs of parts.

    Returns:
        The outputs (N, ...).

    Raises:
        torch.OutOfMemoryError: The memory is full even with one sample.

    Example:
        >>> run_in_halves(torch.relu, torch.tensor([[-1.0], [2.0]]))
        tensor([[0.],
                [2.]])
    """
    try:
        return run(batch)
    except torch.OutOfMemoryError:
        if len(batch) == 1:
            raise
    # Outside the except clause, because the error keeps the network's activations alive.
    torch.cuda.empty_cache()
    half = -(-len(batch) // 2)
    WARNINGS.warning("the GPU's memory is full with batches of %d: halved to %d", len(batch), half)
    joined: Result = join([run_in_halves(run, part, join) for part in (batch[:half], batch[half:])])
    return joined


def with_smaller_batches(
    run: Callable[[Sequence[Tensor]], Result], batches: Sequence[Tensor]
) -> tuple[Result, tuple[str, ...]]:
    """Run on batches. If the GPU's memory is full, start again with batches of half the size.

    Args:
        run: The work. It must change nothing if it fails.
        batches: The samples, each (N, ...).

    Returns:
        The result of ``run``, and a warning if batches were halved.

    Raises:
        torch.OutOfMemoryError: The memory is full even with one sample at a time.

    Example:
        >>> with_smaller_batches(len, [torch.ones(4, 2), torch.ones(4, 2)])
        (2, ())
    """
    size = given = max(map(len, batches))
    while True:
        try:
            result = run(batches)
        except torch.OutOfMemoryError:
            if size == 1:
                raise
        else:
            warning = f"the GPU's memory is full with batches of {given}: halved to {size}"
            return result, (warning,) if size < given else ()
        torch.cuda.empty_cache()
        size = -(-size // 2)
        batches = [batch[part] for batch in batches for part in spans(len(batch), size)]
