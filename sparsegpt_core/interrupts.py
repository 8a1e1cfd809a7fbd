"""What interrupts work: Ctrl-C and SIGTERM, handled where work is whole, and Python's search for reference cycles."""

from __future__ import annotations

__all__ = ["defer_interrupts", "no_collection"]

import contextlib
import gc
import signal
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def defer_interrupts() -> Iterator[None]:
    """Handle SIGINT and SIGTERM after the block instead of inside it. Only the main thread receives signals.

    Example:
        >>> with defer_interrupts():
        ...     total = sum(range(10))  # Ctrl-C here raises KeyboardInterrupt after the block
        >>> total
        45
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    replaced = [number for number, handler in before.items() if callable(handler)]  # others do not run Python code
    for number in replaced:
        signal.signal(number, lambda number, _: received.append(number))
    try:
        yield
    finally:
        for number in replaced:
            signal.signal(number, before[number])
    if received:
        signal.raise_signal(received[0])


@contextlib.contextmanager
def no_collection() -> Iterator[None]:
    """Pause the search for reference cycles, for code that makes many small objects that stay.

    Objects without cycles are freed as always.

    Example:
        >>> import gc
        >>> with no_collection():
        ...     gc.isenabled()
        False
        >>> gc.isenabled()
        True
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
