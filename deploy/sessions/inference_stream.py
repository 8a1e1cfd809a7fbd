"""Runs one inference at a time: an execution context, its CUDA stream and the memory of its tensors."""

from __future__ import annotations

__all__ = ["InferenceStream"]

import contextlib
from collections.abc import Mapping
from types import ModuleType
from typing import Any, Callable, Dict, Tuple

import numpy as np
import numpy.typing as npt

from deploy.machine import Buffer, gpu_errors
from deploy.sessions.cuda_graph import CudaGraph
from deploy.sessions.engine import Engine
from sparsegpt_core.errors import InputError, ModelError

_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: independent of the default stream, which cannot be captured


class InferenceStream:
    """A stream of inferences of one engine. Several streams of an engine run at the same time.

    The memory fits the profile's max shape, and its addresses never change. ``upload``, ``execute`` and ``download``
    put work on the CUDA stream and return; ``synchronize`` waits for it.

    Args:
        cuda: ``pycuda.driver``, with a current context.
        engine: The engine.

    Raises:
        InputError: The memory is full, or an output's shape depends on the data.

    Example:
        >>> stream = InferenceStream(connect(), engine)  # doctest: +SKIP
        >>> stream.fill({"input": images})  # doctest: +SKIP
        >>> for step in (stream.upload, stream.execute, stream.download, stream.synchronize):  # doctest: +SKIP
        ...     step()
        >>> logits = stream.outputs()["logits"]  # doctest: +SKIP
    """

    def __init__(self, cuda: ModuleType, engine: Engine) -> None:
        self._cuda, self._engine = cuda, engine
        self._context: Any = engine.create_context()
        self._shapes: Dict[str, Tuple[int, ...]] = {}
        self._buffers: Dict[str, Buffer] = {}
        with contextlib.ExitStack() as cleanup, gpu_errors(cuda, f"preparing {engine.name}"):
            self.cuda_stream = cuda.Stream(_NON_BLOCKING)
            self.resize({tensor.name: engine.profile(tensor.name)[2] for tensor in engine.inputs})
            for tensor in (*engine.inputs, *engine.outputs):
                buffer = Buffer(cuda, self._shapes[tensor.name], tensor.dtype)
                cleanup.callback(buffer.free)
                self._buffers[tensor.name] = buffer
                if not self._context.set_tensor_address(tensor.name, buffer.address):
                    raise ModelError(
                        f"{engine.name} cannot use the memory for '{tensor.name}': {engine.reason()}",
                        "Build it again on this GPU.",
                    )
            self._cleanup = cleanup.pop_all()

    def resize(self, inputs: Mapping[str, Tuple[int, ...]]) -> None:
        """Set the inputs' shapes. Graphs that were captured before must not be launched afterwards.

        Raises:
            InputError: A shape is outside the engine's profile, or an output's shape stays unknown.
        """
        if all(self._shapes.get(name) == shape for name, shape in inputs.items()):
            return
        for name, shape in inputs.items():
            if not self._context.set_input_shape(name, shape):
                self._shapes = {}  # the context has some of the new shapes
                raise InputError(
                    f"{self._engine.name} does not take the shape {shape}: {self._engine.reason()}",
                    "Build it with `shapes` that include this one. Before TensorRT 10, use `streams=1`.",
                )
        shapes = dict(inputs)
        for output in self._engine.outputs:
            found = tuple(int(size) for size in self._context.get_tensor_shape(output.name))
            if min(found, default=0) < 0:
                raise InputError(
                    f"the shape of output '{output.name}' of {self._engine.name} depends on the data",
                    "Export a model whose outputs have known shapes.",
                )
            shapes[output.name] = found
        self._shapes = shapes

    def fill(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Write arrays into the first rows of the inputs' host memory, and zeros into the rest."""
        for name, values in arrays.items():
            host = self._buffers[name].view(self._shapes[name])
            host[: len(values)] = values
            host[len(values) :] = 0

    def upload(self) -> None:
        """Copy the inputs to the GPU."""
        for tensor in self._engine.inputs:
            self._buffers[tensor.name].upload(self._shapes[tensor.name], self.cuda_stream)

    def execute(self) -> None:
        """Run the engine.

        Raises:
            ModelError: TensorRT cannot run it.
        """
        if not self._context.execute_async_v3(self.cuda_stream.handle):
            raise ModelError(f"{self._engine.name} cannot run: {self._engine.reason()}", "Build it again on this GPU.")

    def download(self) -> None:
        """Copy the outputs to the host."""
        for output in self._engine.outputs:
            self._buffers[output.name].download(self._shapes[output.name], self.cuda_stream)

    def synchronize(self) -> None:
        """Wait until the CUDA stream has finished its work."""
        with gpu_errors(self._cuda, f"running {self._engine.name}"):
            self.cuda_stream.synchronize()

    def outputs(self) -> Dict[str, npt.NDArray[Any]]:
        """Return copies of the outputs of the last download, by name in the engine's order."""
        names = [output.name for output in self._engine.outputs]
        return {name: np.array(self._buffers[name].view(self._shapes[name])) for name in names}

    def attach(self, profiler: Any) -> None:
        """Report each layer's time to an ``IProfiler``. From now on ``execute`` waits for the GPU."""
        self._profiler = profiler  # TensorRT does not keep it alive
        self._context.profiler = profiler

    def capture(self, work: Callable[[], None]) -> CudaGraph:
        """Capture work that this object puts on its CUDA stream.

        Raises:
            InputError: The work cannot be captured.
            MissingDependencyError: cuda-python cannot be imported.
        """
        with gpu_errors(self._cuda, f"preparing a CUDA graph of {self._engine.name}"):
            work()  # the first run after a change of shape cannot be captured
            self.cuda_stream.synchronize()
            ask = getattr(self._context, "is_stream_capturable", None)  # only TensorRT-RTX has it
            if ask is not None and not ask(self.cuda_stream.handle):
                raise InputError(f"TensorRT-RTX cannot capture {self._engine.name}", "Use `cuda_graph=False`.")
            return CudaGraph(self.cuda_stream.handle, work)

    def close(self) -> None:
        """Wait for the stream and free the memory; a second call does nothing."""
        if self._context is not None:
            with self._cleanup:
                try:
                    self.synchronize()
                finally:
                    self._context = None  # before the memory of its tensors is freed
