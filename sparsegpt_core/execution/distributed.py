"""Several processes that prune one network together: each sees its share of the samples and solves its rows.

torch.distributed under ``torchrun`` is the engine: gloo where the network is on the CPU, NCCL where it is on
CUDA. The result does not depend on the number of processes beyond rounding.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from sparsegpt_core.errors import SparseGPTError, first_line
from sparsegpt_core.torchrun import rank, world_size

__all__ = ["ALONE", "PeerError", "World", "join_world", "speaks_for_all"]


class PeerError(SparseGPTError):
    """Another process of the run failed, and has said why."""


class World:
    """The processes at work; a world of one does nothing.

    Args:
        rank: Which of them this is.
        size: How many there are; beyond one, the default process group must exist.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    def share_samples(self, samples: int, batch_size: int) -> slice:
        """Return which samples are this process's: whole batches where there are enough of them."""
        batches = -(-samples // batch_size)
        if batches < self.size:
            return self.share(samples)
        share = self.share(batches)
        return slice(share.start * batch_size, min(share.stop * batch_size, samples))

    def share(self, count: int) -> slice:
        """Return which of ``count`` things are this process's: as even as can be, in the order of ranks."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace every tensor by its sum over all processes."""
        if self.size > 1:
            with _peers():
                for tensor in tensors:
                    dist.all_reduce(tensor)

    def spread(self, tensors: Sequence[Tensor]) -> None:
        """Overwrite every tensor with the first process's."""
        if self.size > 1:
            with _peers():
                for tensor in tensors:
                    dist.broadcast(tensor, 0)

    def place(self, count: int) -> tuple[int, int]:
        """Return the index of the first of this process's ``count`` things among all, and how many there are."""
        if self.size == 1:
            return 0, count
        counts: list[int] = [0] * self.size
        with _peers():
            dist.all_gather_object(counts, count)
        return sum(counts[: self.rank]), sum(counts)


ALONE = World()


@contextlib.contextmanager
def join_world(device: torch.device) -> Iterator[World]:
    """Meet the other processes that ``torchrun`` started; alone elsewhere.

    Args:
        device: Where this process computes; NCCL serves CUDA, gloo everything else.

    Raises:
        PeerError: Another process ended.
    """
    if world_size() == 1:
        yield ALONE
        return
    with _peers():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield World(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


def speaks_for_all() -> bool:
    """Tell whether this process is the first of the run that reports an error; the others keep silent."""
    if world_size() == 1:
        return True
    try:
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = dist.TCPStore(  # type: ignore[attr-defined]
            address, port, is_master=False, timeout=timedelta(seconds=10)
        )
        return bool(store.add("sparsegpt_trt/failed", 1) == 1)
    except (RuntimeError, KeyError, ValueError):  # the store is gone, and with it whoever has spoken
        return rank() == 0


@contextlib.contextmanager
def _peers() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise PeerError(f"another process of the run ended: {first_line(error)}") from error
