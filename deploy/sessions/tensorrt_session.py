"""A TensorRT plan as a session: images in, logits out, on the GPU."""

from __future__ import annotations

__all__ = ["TensorRTSession"]

from pathlib import Path
from types import TracebackType
from typing import Any, Optional, Type

import numpy as np
import numpy.typing as npt

from deploy.graph import InputShape
from deploy.machine import Backend, connect, gpu_errors
from deploy.sessions.engine import Engine
from deploy.sessions.inference_stream import InferenceStream
from deploy.sessions.session import check_images
from sparsegpt_core.errors import InputError, ModelError


class TensorRTSession:
    """A classifier from a plan, run by the TensorRT that built it. Close it, or use it in a ``with``.

    ``engine`` is the open engine; ``batches`` are the smallest, best and largest batch of its profile.

    Args:
        plan_path: The plan, with its sidecar beside it: one image input (FP32, FP16 or INT8), logits as its first
            output.
        backend: Who runs it; None for who built it.

    Raises:
        InputError: The plan is not the one that its sidecar describes, there is no GPU, or its memory is full.
        ModelError: This TensorRT or this GPU cannot load the plan, or it has more than one input.
        MissingDependencyError: The backend or PyCUDA is not installed.
    """

    def __init__(self, plan_path: Path, backend: Optional[Backend] = None) -> None:
        self._cuda = connect()
        self.engine = Engine(plan_path, backend)
        self.name, self.backend = self.engine.name, self.engine.backend
        if len(self.engine.inputs) != 1 or not self.engine.outputs:
            names = ", ".join(tensor.name for tensor in self.engine.inputs)
            raise ModelError(f"{self.name} needs exactly one input, it has: {names}", "Give an image classifier.")
        self._input = self.engine.inputs[0]
        low, best, high = self.engine.profile(self._input.name)
        self.batches = low[0], best[0], high[0]
        self._stream = self.new_stream()

    def __enter__(self) -> TensorRTSession:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    @property
    def input_name(self) -> str:
        """The engine's name for its images."""
        return self._input.name

    @property
    def input_shape(self) -> InputShape:
        """(N, C, H, W); None where a dimension is dynamic."""
        return self._input.shape

    def run(self, images: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Turn images (N, C, H, W), of any N that is not 0, into logits (N, classes).

        They go in portions of the profile's largest batch; a portion below its smallest is filled up with zeros.

        Raises:
            InputError: The images' shape or type is not the engine's, or the GPU fails.
            ModelError: TensorRT refuses to run, or the engine gives no (N, classes).
        """
        images = self.cast(images)
        most = self.batches[2]
        portions = [self._run_one(images[start : start + most]) for start in range(0, len(images), most)]
        return portions[0] if len(portions) == 1 else np.concatenate(portions)

    def cast(self, images: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Check images and give them the engine's type.

        Raises:
            InputError: They do not fit: their shape is not the engine's, or it takes integers and they are others.
        """
        check_images(self.name, self.input_shape, images)
        if self._input.dtype.kind != "f" and images.dtype != self._input.dtype:
            raise InputError(
                f"{self.name} takes {self._input.dtype} images, not {images.dtype}", "Quantise the images first."
            )
        return images.astype(self._input.dtype, copy=False)

    def new_stream(self) -> InferenceStream:
        """Make another execution context with its own stream and memory; its maker closes it.

        Raises:
            InputError: Memory is full.
        """
        return InferenceStream(self._cuda, self.engine)

    def close(self) -> None:
        """Free the GPU's memory; the session is of no use then. A second call does nothing."""
        self._stream.close()
        self.engine.close()

    def _run_one(self, images: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        stream, batch = self._stream, max(len(images), self.batches[0])
        stream.resize((batch, *images.shape[1:]))
        stream.fill(images)
        with gpu_errors(self._cuda, f"running {self.name}"):
            stream.upload()
            stream.execute()
            stream.download()
        stream.synchronize()
        logits = stream.output()
        if logits.ndim != 2 or len(logits) != batch:
            raise ModelError(f"{self.name} gives {logits.shape}, not ({batch}, classes)", "It is no classifier.")
        return np.asarray(logits[: len(images)], dtype=np.float32)
