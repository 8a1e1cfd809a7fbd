"""An ONNX classifier as a session on ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional

import numpy as np
import numpy.typing as npt

from deploy.graph import InputShape
from deploy.machine import require
from deploy.sessions.session import check_images
from sparsegpt_core.errors import InputError, ModelError, first_line

__all__ = ["OnnxSession"]

_DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


class OnnxSession:
    """An ONNX classifier on ONNX Runtime.

    Args:
        path: The .onnx file. It has one FP32 or FP16 image input, and its first output is the logits.
        threads: Threads of one operator; None for ONNX Runtime's choice.
        provider: The execution provider.

    Raises:
        InputError: The file is missing, or this ONNX Runtime lacks the provider or cannot start it.
        ModelError: The file cannot be loaded, or is not an image classifier.
        MissingDependencyError: onnxruntime is not installed.

    Example:
        >>> session = OnnxSession(Path("sparse.onnx"))  # doctest: +SKIP
        >>> session.run(images).shape  # doctest: +SKIP
        (8, 10)
    """

    def __init__(self, path: Path, threads: Optional[int] = None, provider: str = "CPUExecutionProvider") -> None:
        runtime = require("onnxruntime")
        if not path.is_file():
            raise InputError(f"no ONNX file at {path}", "Give the path of a .onnx file.")
        require("onnx")
        from export.audit import external_files, read_model
        from export.onnxruntime_session import open_session

        external_files(read_model(path), path)  # checked here since ONNX Runtime's own rules differ by version
        known = runtime.get_available_providers()
        if provider not in known:  # ONNX Runtime itself would use the CPU without an error
            raise InputError(f"this ONNX Runtime has no {provider}", f"It has {', '.join(known)}.")
        self._session = open_session(str(path), str(path), threads=threads, provider=provider)
        if provider not in self._session.get_providers():
            raise InputError(
                f"{provider} does not start, so ONNX Runtime would run {path} on the CPU",
                "Check the GPU with nvidia-smi, and install the CUDA and cuDNN that this onnxruntime-gpu needs.",
            )
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or inputs[0].type not in _DTYPES:
            found = ", ".join(f"{value.name} {value.type}" for value in inputs)
            raise ModelError(
                f"{path} needs exactly one FP32 or FP16 input, it has: {found or 'none'}", "Give an image classifier."
            )
        self.name = path.name
        self.input_name: str = inputs[0].name
        self.input_shape: InputShape = tuple(size if isinstance(size, int) else None for size in inputs[0].shape)
        self._dtype = _DTYPES[inputs[0].type]
        self._output: str = self._session.get_outputs()[0].name

    def run(self, images: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Turn images (N, C, H, W) with any N above 0 into logits (N, classes).

        A model with a fixed batch runs the images in portions. Zeros fill the last one.

        Raises:
            InputError: The images' shape does not fit the model, or its output is not (N, classes).
        """
        check_images(self.name, self.input_shape, images)
        batch = (self.input_shape[0] if self.input_shape else None) or len(images)
        portions = [self._run_one(images[start : start + batch], batch) for start in range(0, len(images), batch)]
        return portions[0] if len(portions) == 1 else np.concatenate(portions)

    def _run_one(self, images: npt.NDArray[Any], batch: int) -> npt.NDArray[np.float32]:
        count = len(images)
        if count < batch:
            images = np.concatenate([images, np.zeros((batch - count, *images.shape[1:]), images.dtype)])
        try:
            (logits,) = self._session.run([self._output], {self.input_name: images.astype(self._dtype, copy=False)})
        except Exception as error:
            raise InputError(f"{self.name} cannot run images of shape {images.shape}: {first_line(error)}") from error
        if logits.ndim != 2 or len(logits) != batch:
            raise InputError(f"{self.name} returns {logits.shape}, not ({batch}, classes)", "Give an image classifier.")
        return np.asarray(logits[:count], dtype=np.float32)
