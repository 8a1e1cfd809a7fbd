"""A TensorRT plan as a session: it turns images into outputs on the GPU."""

from __future__ import annotations

__all__ = ["TensorRTSession"]

from pathlib import Path
from types import TracebackType
from typing import Any, Dict, Optional, Type

import numpy as np
import numpy.typing as npt

from deploy.graph import InputShape
from deploy.machine import Backend, connect, gpu_errors
from deploy.sessions.engine import Engine
from deploy.sessions.inference_stream import InferenceStream
from deploy.sessions.session import cast_inputs, check_inputs, join_portions, logits_of, rows_of
from sparsegpt_core.errors import ModelError
from sparsegpt_core.named_inputs import Arrays


class TensorRTSession:
    """A network from a plan. Close it, or use it in a ``with``.

    ``engine`` is the open engine. ``batches`` are the min, opt and max batch of its profile.

    Args:
        plan_path: The plan, with its sidecar next to it.
        backend: The backend that runs it; None for the one that built it.

    Raises:
        InputError: The plan does not match its sidecar, there is no GPU, or the GPU's memory is full.
        ModelError: This TensorRT or this GPU cannot load the plan, or it has no input or no output.
        MissingDependencyError: The backend or PyCUDA is not installed.

    Example:
        >>> with TensorRTSession(Path("sparse.plan")) as session:  # doctest: +SKIP
        ...     logits = session.run(images)  # (N, classes)
    """

    def __init__(self, plan_path: Path, backend: Optional[Backend] = None) -> None:
        self._cuda = connect()
        self.engine = Engine(plan_path, backend)
        self.name, self.backend = self.engine.name, self.engine.backend
        if not self.engine.inputs or not self.engine.outputs:
            raise ModelError(f"{self.name} has no input or no output", "Give a network of images.")
        low, best, high = self.engine.profile(self.engine.inputs[0].name)
        self.batches = low[0], best[0], high[0]
        self._stream: Optional[InferenceStream] = None  # created by the first run, since a timer has its own streams

    def __enter__(self) -> TensorRTSession:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    @property
    def input_shapes(self) -> Dict[str, InputShape]:
        """(N, C, H, W) of images, or (N, ...) of each input, by name; None for a dynamic dimension."""
        return {tensor.name: tensor.shape for tensor in self.engine.inputs}

    def outputs(self, images: Arrays) -> Dict[str, npt.NDArray[Any]]:
        """Turn images (N, C, H, W) with any N above 0 into all outputs (N, ...) by name, in the engine's order.

        The images run in portions of the profile's max batch. Zeros fill a portion up to the min batch. Several inputs
        are :class:`~sparsegpt_core.named_inputs.NamedInputs`.

        Raises:
            InputError: The images' shape or type does not fit the engine, an output does not have one row for each
                image, or the GPU fails.
            ModelError: TensorRT cannot run the engine.
        """
        arrays, max_batch = self.cast(images), self.batches[2]
        return join_portions(
            [
                self._run_one({name: values[start : start + max_batch] for name, values in arrays.items()})
                for start in range(0, len(images), max_batch)
            ]
        )

    def run(self, images: Arrays) -> npt.NDArray[np.float32]:
        """Turn images (N, C, H, W) with any N above 0 into logits (N, classes), the first output.

        Raises:
            InputError: As for ``outputs``.
            ModelError: As for ``outputs``. The first output is not (N, classes).
        """
        return logits_of(self.name, self.outputs(images))

    def cast(self, images: Arrays) -> Dict[str, npt.NDArray[Any]]:
        """Check images, or several inputs, and convert them to the engine's types; return the array of each input.

        Raises:
            InputError: A shape does not fit, or the engine takes integers and an array has another type.
        """
        arrays = check_inputs(self.name, self.input_shapes, images)
        return cast_inputs(self.name, {tensor.name: tensor.dtype for tensor in self.engine.inputs}, arrays)

    def new_stream(self) -> InferenceStream:
        """Create an execution context with its own CUDA stream and memory. The caller closes it.

        Raises:
            InputError: The memory is full.
        """
        return InferenceStream(self._cuda, self.engine)

    def close(self) -> None:
        """Free the GPU's memory, after which the session cannot run. A second call does nothing."""
        if self._stream is not None:
            self._stream.close()
        self.engine.close()

    def _run_one(self, arrays: Dict[str, npt.NDArray[Any]]) -> Dict[str, npt.NDArray[Any]]:
        if self._stream is None:
            self._stream = self.new_stream()
        count = len(next(iter(arrays.values())))
        stream, batch = self._stream, max(count, self.batches[0])
        stream.resize({name: (batch, *values.shape[1:]) for name, values in arrays.items()})
        stream.fill(arrays)
        with gpu_errors(self._cuda, f"running {self.name}"):
            stream.upload()
            stream.execute()
            stream.download()
        stream.synchronize()
        found = stream.outputs()
        return {name: rows_of(self.name, name, value, batch)[:count] for name, value in found.items()}
