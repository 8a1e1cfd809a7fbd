"""Python's search for reference cycles, which imports and traces start often and in vain."""

from __future__ import annotations

__all__ = ["no_collection"]

import contextlib
import gc
from collections.abc import Iterator


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
