"""Executors of several machines: a Dask cluster, or any executor of ``concurrent.futures``. Loads no torch."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future, as_completed
from typing import Any, TypeVar

from sparsegpt_cli.messages import Messages
from sparsegpt_core.errors import InputError, MissingDependencyError, first_line
from sparsegpt_core.user_code import import_object

__all__ = ["each_in_executor", "open_executor"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def each_in_executor(
    function: Callable[[Item], Result], items: Iterable[Item], executor: Executor
) -> Generator[tuple[Item, Result | Exception], None, None]:
    """Call ``function`` on every item in an executor, and yield each result when it is ready.

    A worker that dies takes other items along that wait for it. So items without a result are tried once more at the
    end, each alone: only an item that no worker survives is lost. Items that have not started are cancelled when the
    generator is closed.

    Args:
        function: A function of a module that the workers can import.
        items: Its arguments. They and the results must be picklable.
        executor: Any; it stays open.

    Yields:
        An item and its result; or the exception if there is none, such as that of a worker that died.
    """
    futures = {executor.submit(function, item): item for item in items}
    alone = []
    try:
        for future in as_completed(list(futures)):
            item = futures.pop(future)
            outcome = _outcome(future)
            if isinstance(outcome, Exception):
                alone.append(item)
            else:
                yield item, outcome
        for item in alone:
            future = executor.submit(function, item)
            futures[future] = item
            outcome = _outcome(future)
            yield item, outcome
    finally:
        for future in futures:
            future.cancel()


@contextlib.contextmanager
def open_executor(cluster: str, messages: Messages) -> Iterator[Executor]:
    """Connect to a cluster, and disconnect at the end of the context.

    Args:
        cluster: The address of a Dask scheduler, such as ``tcp://10.0.0.1:8786``; or ``package.module:factory`` or
            ``path/to/file.py:factory``, whose result is an executor. Runs that code.
        messages: Takes the number of workers.

    Raises:
        InputError: No scheduler answers there, or the factory gives no executor.
        MissingDependencyError: Dask's ``distributed`` is not installed.
    """
    if "://" in cluster:
        with _dask_client(cluster, messages) as client:
            yield client.get_executor(pure=False)
        return
    try:
        executor = import_object(cluster)()
    except TypeError as error:
        raise InputError(f"cannot call {cluster}: {first_line(error)}", "Name a function without arguments.") from error
    if not isinstance(executor, Executor):
        raise InputError(
            f"{cluster} gives no executor of concurrent.futures but {type(executor).__name__}",
            "Give tcp://HOST:PORT of a Dask scheduler, or a function that returns an executor.",
        )
    with executor:
        yield executor


def _dask_client(address: str, messages: Messages) -> Any:
    """Return a client of a Dask scheduler."""
    try:
        distributed: Any = importlib.import_module("distributed")
    except ImportError as error:
        raise MissingDependencyError(
            f"{address} is a Dask scheduler, and Dask's distributed is not installed: {first_line(error)}",
            "Install it: pip install distributed.",
        ) from error
    messages.say(f"connecting to {address}")
    try:
        client = distributed.Client(address, set_as_default=False)
    except (OSError, ValueError) as error:  # ValueError: such as an unknown protocol
        raise InputError(
            f"no Dask scheduler answers at {address}: {first_line(error)}",
            "Start one with `dask scheduler`, and give the address that it prints.",
        ) from error
    threads = client.nthreads()  # by worker
    messages.say(f"{len(threads)} workers at {address}")
    crowded = sum(count > 1 for count in threads.values())
    if crowded:
        several = f"{crowded} of {len(threads)} workers take several cells and compute one at a time"
        messages.warn(f"{several}: start them with --nthreads 1")
    return client


def _outcome(future: Future[Result]) -> Result | Exception:
    try:
        return future.result()
    except Exception as error:  # of the worker or the connection: the executor says which
        return error
