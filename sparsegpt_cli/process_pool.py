"""A pool of processes that survives the death of any of them. Loads no torch."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from typing import TypeVar

__all__ = ["each_in_processes"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def each_in_processes(
    function: Callable[[Item], Result], items: Iterable[Item], jobs: int
) -> Generator[tuple[Item, Result | None], None, None]:
    """Call ``function`` on every item in ``jobs`` processes, and yield each result when it is ready.

    Every process has its own pool, so the death of one does not affect the others. No process outlives the caller:
    all end when the generator is closed, and when this process is killed.

    Args:
        function: A function of a module. An exception in it ends all processes.
        items: Its arguments. They and the results must be picklable.
        jobs: Processes at the same time.

    Yields:
        An item and its result; None if the process died.
    """
    waiting = iter(items)
    spawn = multiprocessing.get_context("spawn")  # a fork would copy locks that threads of torch hold
    pools: list[ProcessPoolExecutor] = []
    running: dict[Future[Result], tuple[ProcessPoolExecutor, Item]] = {}
    watched, held = spawn.Pipe(duplex=False)

    def start(pool: ProcessPoolExecutor | None) -> bool:
        """Give the next item to a pool, or to a new one; return False if no item is left."""
        for item in waiting:
            future = None
            if pool is not None:
                with contextlib.suppress(BrokenProcessPool):  # its process died between two items
                    future = pool.submit(function, item)
            if pool is None or future is None:
                pool = ProcessPoolExecutor(1, spawn, _watch, (watched,))
                pools.append(pool)
                with _uninterrupted():
                    future = pool.submit(function, item)
            running[future] = pool, item
            return True
        return False

    try:
        while len(running) < jobs and start(None):
            pass
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                pool, item = running.pop(future)
                died = isinstance(future.exception(), BrokenProcessPool)
                start(None if died else pool)
                yield item, None if died else future.result()
    finally:
        held.close()  # ends every worker at once
        watched.close()
        for pool in pools:
            pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let processes start that ignore Ctrl-C, since a blocked signal is inherited. Their parent ends them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _watch(watched: Connection) -> None:
    """End this worker as soon as the other end of the pipe is closed."""

    def end() -> None:
        with contextlib.suppress(EOFError, OSError):
            watched.recv_bytes()
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()
