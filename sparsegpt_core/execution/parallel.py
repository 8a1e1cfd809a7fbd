"""Work on the CPU's cores whose result does not depend on how many there are.

A product that several threads share is summed in an order that depends on their number, and pruning turns a
last bit into other masks. So work is cut into the same pieces everywhere, and each piece is one thread's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TypeVar

import torch

__all__ = ["each", "spans", "workers"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def each(
    function: Callable[[Item], Result], items: Sequence[Item], device: torch.device, *, spare: bool = False
) -> list[Result]:
    """Call ``function`` on every item, without gradients: on the CPU as many at a time as PyTorch has threads.

    On the CPU each call computes with one thread; elsewhere calls follow each other.

    Args:
        function: What to call; it must bear being called by several threads.
        items: What to call it on.
        device: Where it computes.
        spare: Where there are fewer items than threads, give each several: faster, but rounding then depends on them.

    Raises:
        Exception: What a call raised first; those not yet begun are given up.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1:
        return [function(item) for item in items]
    count = workers(len(items), device)
    own = threads // count if spare else 1

    def call(item: Item) -> Result:
        # For every call: PyTorch's number is the thread's own, but that of the BLAS behind it is the process's.
        torch.set_num_threads(own)
        with torch.no_grad():
            return function(item)

    pool = _pool(count)
    futures = [pool.submit(call, item) for item in items]
    try:
        return [future.result() for future in futures]
    finally:
        for future in futures:
            future.cancel()
        torch.set_num_threads(threads)


def workers(items: int, device: torch.device) -> int:
    """Return how many calls :func:`each` makes at a time."""
    return max(1, min(torch.get_num_threads(), items)) if device.type == "cpu" else 1


def spans(total: int, size: int) -> list[slice]:
    """Cut ``total`` things into runs of ``size``, the last one shorter."""
    return [slice(start, min(start + size, total)) for start in range(0, total, size)]


@lru_cache(maxsize=8)
def _pool(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, "pruning")
