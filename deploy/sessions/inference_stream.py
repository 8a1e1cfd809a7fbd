"""An engine's execution context with a stream and the memory of its tensors: what runs one inference at a time."""

from __future__ import annotations

__all__ = ["InferenceStream"]

import contextlib
from types import ModuleType
from typing import Any, Callable, Dict, Tuple

import numpy as np
import numpy.typing as npt

from deploy.machine import Buffer, gpu_errors
from deploy.sessions.cuda_graph import CudaGraph
from deploy.sessions.engine import Engine
from sparsegpt_core.errors import InputError, ModelError

_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: does not wait for the default stream, which cannot be captured


class InferenceStream:
    """One way through an engine; several of one engine can be under way at once.

    Memory is that of the profile's largest shape, and its addresses never change. ``upload``, ``execute`` and
    ``download`` put work on the stream and return; ``synchronize`` waits for it.

    Args:
        cuda: ``pycuda.driver``, with a context.
        engine: With one input.

    Raises:
        InputError: Memory is full, or an output's shape depends on the data.
    """

    def __init__(self, cuda: ModuleType, engine: Engine) -> None:
        self._cuda, self._engine = cuda, engine
        self._context: Any = engine.create_context()
        self._shapes: Dict[str, Tuple[int, ...]] = {}
        self._buffers: Dict[str, Buffer] = {}
        self._input = engine.inputs[0]
        with contextlib.ExitStack() as cleanup, gpu_errors(cuda, f"preparing {engine.name}"):
            self.cuda_stream = cuda.Stream(_NON_BLOCKING)
            self.resize(engine.profile(self._input.name)[2])
            for tensor in (*engine.inputs, *engine.outputs):
                buffer = Buffer(cuda, self._shapes[tensor.name], tensor.dtype)
                cleanup.callback(buffer.free)
                self._buffers[tensor.name] = buffer
                if not self._context.set_tensor_address(tensor.name, buffer.address):
                    raise ModelError(f"{engine.name} refuses memory for '{tensor.name}': {engine.reason()}")
            self._cleanup = cleanup.pop_all()

    def resize(self, shape: Tuple[int, ...]) -> None:
        """Set the input's shape; a graph that was captured before is no longer to be launched.

        Raises:
            InputError: The shape is not in the engine's profile, or leaves an output's shape open.
        """
        name = self._input.name
        if self._shapes.get(name) == shape:
            return
        if not self._context.set_input_shape(name, shape):
            raise InputError(
                f"{self._engine.name} does not take the shape {shape}: {self._engine.reason()}",
                "Build it with --shapes that hold it; before TensorRT 10, an engine runs on one stream only.",
            )
        shapes = {name: shape}
        for output in self._engine.outputs:
            found = tuple(int(size) for size in self._context.get_tensor_shape(output.name))
            if min(found, default=0) < 0:
                raise InputError(
                    f"the shape of output '{output.name}' of {self._engine.name} depends on the data",
                    "Only outputs of a known shape can be run and timed.",
                )
            shapes[output.name] = found
        self._shapes = shapes

    def fill(self, values: npt.NDArray[Any]) -> None:
        """Write the input's first rows on the host, and zeros in the rest."""
        host = self._buffers[self._input.name].view(self._shapes[self._input.name])
        host[: len(values)] = values
        host[len(values) :] = 0

    def upload(self) -> None:
        """Copy the input to the GPU."""
        self._buffers[self._input.name].upload(self._shapes[self._input.name], self.cuda_stream)

    def execute(self) -> None:
        """Run the engine.

        Raises:
            ModelError: TensorRT refuses.
        """
        if not self._context.execute_async_v3(self.cuda_stream.handle):
            raise ModelError(f"{self._engine.name} cannot run: {self._engine.reason()}", "Build it again on this GPU.")

    def download(self) -> None:
        """Copy the outputs to the host."""
        for output in self._engine.outputs:
            self._buffers[output.name].download(self._shapes[output.name], self.cuda_stream)

    def synchronize(self) -> None:
        """Wait until the stream has done all that was put on it."""
        with gpu_errors(self._cuda, f"running {self._engine.name}"):
            self.cuda_stream.synchronize()

    def output(self) -> npt.NDArray[Any]:
        """Return a copy of the first output as the last download left it."""
        name = self._engine.outputs[0].name
        return np.array(self._buffers[name].view(self._shapes[name]))

    def attach(self, profiler: Any) -> None:
        """Have TensorRT report each layer's time to an ``IProfiler``; ``execute`` waits for the GPU from then on."""
        self._profiler = profiler  # TensorRT does not keep it alive
        self._context.profiler = profiler

    def capture(self, work: Callable[[], None]) -> CudaGraph:
        """Capture work that puts this stream's calls on its stream.

        Raises:
            InputError: It cannot be captured.
            MissingDependencyError: cuda-python cannot be imported.
        """
        with gpu_errors(self._cuda, f"preparing a CUDA graph of {self._engine.name}"):
            work()  # once outside: the first run after a change of shape does what cannot be captured
            self.cuda_stream.synchronize()
            return CudaGraph(self.cuda_stream.handle, work)

    def close(self) -> None:
        """Wait for the stream and free the memory; a second call does nothing."""
        if self._context is not None:
            with self._cleanup:
                try:
                    self.synchronize()
                finally:
                    self._context = None  # before its tensors' memory goes
