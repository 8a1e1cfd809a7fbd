"""Work that Ctrl-C and SIGTERM do not cut in two."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

__all__ = ["uninterrupted"]


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Handle SIGINT and SIGTERM at the end of the block. Other threads than the main one never receive them.

    Example:
        >>> steps = []
        >>> try:
        ...     with uninterrupted():
        ...         signal.raise_signal(signal.SIGINT)
        ...         steps.append("finished")
        ... except KeyboardInterrupt:
        ...     steps.append("interrupted")
        >>> steps
        ['finished', 'interrupted']
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: received.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if received:
        signal.raise_signal(received[0])
