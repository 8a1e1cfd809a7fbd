"""CUDA graphs through cuda-python, since PyCUDA has none: work that is captured once and launched as a whole."""

from __future__ import annotations

__all__ = ["CudaGraph"]

import importlib
from typing import Any, Callable, Tuple

from sparsegpt_core.errors import InputError, MissingDependencyError, first_line

_HINT = "Measure without CUDA graphs."


class CudaGraph:
    """Captured work.

    Args:
        stream: The handle of the stream that the work is put on; not the default stream.
        work: Puts the work on that stream, allocates nothing and does not wait. What TensorRT executes in it must
            have been executed once before with the same shapes, since its first run sets itself up.

    Raises:
        InputError: The work cannot be captured.
        MissingDependencyError: cuda-python cannot be imported.
    """

    def __init__(self, stream: int, work: Callable[[], None]) -> None:
        self._driver = driver = _load()
        self._stream = driver.CUstream(stream)
        mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._check("cuStreamBeginCapture", driver.cuStreamBeginCapture(self._stream, mode))
        try:
            work()
        except BaseException:
            driver.cuStreamEndCapture(self._stream)  # or the stream would take no other work
            raise
        graph = self._check("cuStreamEndCapture", driver.cuStreamEndCapture(self._stream))
        try:
            self._executable = self._check("cuGraphInstantiate", driver.cuGraphInstantiate(graph, 0))
        finally:
            driver.cuGraphDestroy(graph)

    def launch(self) -> None:
        """Put all of the work on the stream.

        Raises:
            InputError: The GPU refuses.
        """
        self._check("cuGraphLaunch", self._driver.cuGraphLaunch(self._executable, self._stream))

    def close(self) -> None:
        """Free the graph; the stream must be done with it."""
        self._driver.cuGraphExecDestroy(self._executable)

    def _check(self, call: str, answer: Tuple[Any, ...]) -> Any:
        """Return what a call gives besides its error code, which comes first."""
        error, *values = answer
        if error != self._driver.CUresult.CUDA_SUCCESS:
            raise InputError(f"{call} fails: {getattr(error, 'name', error)}", _HINT)
        return values[0] if values else None


def _load() -> Any:
    try:
        return importlib.import_module("cuda.bindings.driver")
    except Exception as error:  # half-installed libraries fail with more than ImportError
        raise MissingDependencyError(
            f"cannot import cuda.bindings.driver: {first_line(error)}", "pip install cuda-python"
        ) from error
