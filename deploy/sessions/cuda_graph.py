"""CUDA graphs: GPU work that is captured once and launched as a whole. PyCUDA has none, so cuda-python is used."""

from __future__ import annotations

__all__ = ["CudaGraph"]

import importlib
from typing import Any, Callable, Tuple

from sparsegpt_core.errors import InputError, MissingDependencyError, first_line

_HINT = "Use `cuda_graph=False`."


class CudaGraph:
    """Captured work.

    Args:
        stream: The handle of the stream to capture, which must not be the default stream.
        work: Puts the work on that stream. It must neither allocate nor wait. Execution contexts in it must have run
            once with the same shapes, since the first run prepares the engine.

    Raises:
        InputError: The work cannot be captured.
        MissingDependencyError: cuda-python cannot be imported.

    Example:
        >>> graph = CudaGraph(stream.handle, lambda: context.execute_async_v3(stream.handle))  # doctest: +SKIP
        >>> graph.launch()  # doctest: +SKIP
    """

    def __init__(self, stream: int, work: Callable[[], None]) -> None:
        self._driver = driver = _load()
        self._stream = driver.CUstream(stream)
        mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._check("cuStreamBeginCapture", driver.cuStreamBeginCapture(self._stream, mode))
        try:
            work()
        except BaseException:
            error, graph = driver.cuStreamEndCapture(self._stream)  # otherwise the stream stays in capture mode
            if error == driver.CUresult.CUDA_SUCCESS:
                driver.cuGraphDestroy(graph)
            raise
        graph = self._check("cuStreamEndCapture", driver.cuStreamEndCapture(self._stream))
        try:
            self._executable = self._check("cuGraphInstantiate", driver.cuGraphInstantiate(graph, 0))
        finally:
            driver.cuGraphDestroy(graph)

    def launch(self) -> None:
        """Put the captured work on the stream.

        Raises:
            InputError: The driver reports an error.
        """
        self._check("cuGraphLaunch", self._driver.cuGraphLaunch(self._executable, self._stream))

    def close(self) -> None:
        """Free the graph. The stream must have finished it."""
        self._driver.cuGraphExecDestroy(self._executable)

    def _check(self, call: str, answer: Tuple[Any, ...]) -> Any:
        """Return the value after the error code, or raise an error for a failed call."""
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
