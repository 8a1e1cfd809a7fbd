"""Ctrl-C while TensorRT works.

Python raises ``KeyboardInterrupt`` at its next bytecode. While TensorRT works, this is inside a callback, such as the
logger's, and TensorRT drops the exceptions of callbacks: the work would go on.
"""

from __future__ import annotations

__all__ = ["run_interruptibly"]

import atexit
import ctypes
import os
import sys
import threading
from concurrent.futures import Future, wait
from typing import Any, Callable, TypeVar

_T = TypeVar("_T")
_GRACE_S = 0.3
_INTERRUPTED = 130  # exit status


def run_interruptibly(work: Callable[[], _T], stop: Callable[[], None]) -> _T:
    """Run native work in a thread, so that Ctrl-C raises ``KeyboardInterrupt`` here at once.

    Work that does not stop continues until the process ends, and does not delay this end.

    Args:
        work: The work. It uses the CUDA context of the calling thread and must write no files.
        stop: Asks the work to end early.

    Returns:
        The result of ``work``, or its exception.

    Example:
        >>> run_interruptibly(lambda: 6 * 7, stop=lambda: None)
        42
    """
    outcome: Future[_T] = Future()
    use_context = _current_context()

    def run() -> None:
        try:
            use_context()
            outcome.set_result(work())
        except BaseException as error:  # the calling thread raises it
            outcome.set_exception(error)

    try:
        threading.Thread(target=run, daemon=True).start()
        return outcome.result()
    except KeyboardInterrupt:
        stop()
        atexit.register(_end_process_if_running, outcome)
        wait([outcome], _GRACE_S)
        raise


def _current_context() -> Callable[[], Any]:
    """Return a function that makes this thread's CUDA context current in another thread."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return lambda: None
    context = ctypes.c_void_p()
    if cuda.cuCtxGetCurrent(ctypes.byref(context)) or not context:
        return lambda: None
    return lambda: cuda.cuCtxSetCurrent(context)


def _end_process_if_running(work: Future[Any]) -> None:
    """End the process at once if the work still runs: native code would crash while Python shuts down around it."""
    if not work.done():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(_INTERRUPTED)
