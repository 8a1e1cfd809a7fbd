"""Several processes that prune one network together. Each sees its share of the samples and solves its rows.

They are started by ``torchrun`` and communicate through torch.distributed: gloo on the CPU, NCCL on CUDA. The result is
bit-identical for any number of processes (docs/decisions/0006).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import TypeVar, cast

import torch
import torch.distributed as dist

# Imported before a group exists: its functions take the group of that moment as a default. torch.export imports it too,
# and the group with its threads would outlive the run; such a thread can abort the process when Python ends.
import torch.distributed.nn.functional
from torch import Tensor

from sparsegpt_core.errors import SparseGPTError, first_line
from sparsegpt_core.torchrun import rank, world_size

__all__ = ["ALONE", "PeerError", "World", "join_world", "speaks_for_all"]


T = TypeVar("T")


class PeerError(SparseGPTError):
    """Another process of the run failed, and has reported the reason."""


class World:
    """The processes that work together. With one process its methods communicate nothing.

    Args:
        rank: The index of this process.
        size: The number of processes. With more than one, the default process group must exist.

    Example:
        >>> World(rank=1, size=2).share(5)
        slice(2, 5, None)
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    def share_samples(self, samples: int, batch_size: int) -> slice:
        """Return this process's share of the samples: whole batches if there are enough for all processes."""
        batches = -(-samples // batch_size)
        if batches < self.size:
            return self.share(samples)
        share = self.share(batches)
        return slice(share.start * batch_size, min(share.stop * batch_size, samples))

    def share(self, count: int) -> slice:
        """Return this process's share of ``count`` items, in the order of ranks. Shares differ by at most one item."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace every tensor by its sum over all processes.

        Raises:
            PeerError: Another process ended.
        """
        if self.size > 1:
            with _peers():
                for tensor in tensors:
                    dist.all_reduce(tensor)

    def spread(self, tensors: Sequence[Tensor]) -> None:
        """Replace every tensor by that of the first process.

        Raises:
            PeerError: Another process ended.
        """
        if self.size > 1:
            with _peers():
                for tensor in tensors:
                    dist.broadcast(tensor, 0)

    def first(self, make: Callable[[], T]) -> T:
        """Return what ``make`` returns on the first process. The other processes do not call it.

        Args:
            make: Returns something that pickle can send.

        Raises:
            PeerError: Another process ended.
        """
        if self.size == 1:
            return make()
        values = [make() if self.rank == 0 else None]
        with _peers():
            dist.broadcast_object_list(values, 0)
        return cast(T, values[0])

    def place(self, count: int) -> tuple[int, int]:
        """Return the index of this process's first item among those of all processes, and the number of all items.

        Args:
            count: The number of items of this process.

        Raises:
            PeerError: Another process ended.
        """
        if self.size == 1:
            return 0, count
        counts: list[int] = [0] * self.size
        with _peers():
            dist.all_gather_object(counts, count)
        return sum(counts[: self.rank]), sum(counts)


ALONE = World()
"""A single process."""


@contextlib.contextmanager
def join_world(device: torch.device) -> Iterator[World]:
    """Connect to the other processes that ``torchrun`` started; give :data:`ALONE` without ``torchrun``.

    Args:
        device: The device of this process, on CUDA with its index: NCCL for tensors on CUDA, gloo for those on the CPU.

    Raises:
        PeerError: Another process ended.

    Example:
        >>> with join_world(torch.device("cpu")) as world:
        ...     world.size
        1
    """
    if world_size() == 1:
        yield ALONE
        return
    with _peers():
        if device.type == "cuda":
            torch.cuda.set_device(device)  # NCCL works on the current device, which is the first GPU by default
            dist.init_process_group("cpu:gloo,cuda:nccl", device_id=device)
        else:
            dist.init_process_group("gloo")
    try:
        yield World(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


def speaks_for_all() -> bool:
    """Whether this process is the first of the run to report an error. The others report nothing.

    Example:
        >>> speaks_for_all()
        True
    """
    if world_size() == 1:
        return True
    try:
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = dist.TCPStore(  # type: ignore[attr-defined]
            address, port, is_master=False, timeout=timedelta(seconds=10)
        )
        return bool(store.add("sparsegpt_trt/failed", 1) == 1)
    except (RuntimeError, KeyError, ValueError):  # the store ended with the process that reported
        return rank() == 0


@contextlib.contextmanager
def _peers() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise PeerError(f"another process of the run ended: {first_line(error)}") from error
