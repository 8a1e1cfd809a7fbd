"""Work on several CPU cores with a result that does not depend on their number.

Threads that share a product sum it in an order that depends on the number of threads, and in pruning a different last
bit leads to different masks. So the work is cut into the same pieces everywhere, and one thread computes each piece.
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
    """Call a function on every item, without gradients.

    On the CPU as many calls run at a time as PyTorch has threads, each with one thread. On other devices the calls run
    one after another.

    Args:
        function: A thread-safe function.
        items: The arguments of the calls.
        device: The device that the function computes on.
        spare: Give each call several threads if there are fewer items than threads. This is faster, but rounding then
            depends on the number of threads.

    Returns:
        The results, in the order of the items.

    Raises:
        Exception: The first error of a call. Calls that have not started are cancelled.

    Example:
        >>> each(lambda item: item * item, [1, 2, 3], torch.device("cpu"))
        [1, 4, 9]
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1:
        return [function(item) for item in items]
    count = workers(len(items), device)
    own = threads // count if spare else 1

    def call(item: Item) -> Result:
        # At every call: PyTorch's number of threads belongs to the thread, but that of its BLAS to the process.
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
    """Return how many calls :func:`each` makes at a time.

    Example:
        >>> workers(1, torch.device("cpu"))
        1
    """
    return max(1, min(torch.get_num_threads(), items)) if device.type == "cpu" else 1


def spans(total: int, size: int) -> list[slice]:
    """Cut ``total`` items into runs of ``size``; the last may be shorter.

    Example:
        >>> spans(10, 4)
        [slice(0, 4, None), slice(4, 8, None), slice(8, 10, None)]
    """
    return [slice(start, min(start + size, total)) for start in range(0, total, size)]


@lru_cache(maxsize=8)
def _pool(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, "pruning")
