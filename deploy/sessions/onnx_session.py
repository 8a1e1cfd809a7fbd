"""An ONNX file as a session on ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple, Union

import numpy as np
import numpy.typing as npt

from deploy.graph import InputShape, OnnxFile
from deploy.machine import require
from deploy.sessions.session import check_images, join_portions, logits_of, rows_of
from sparsegpt_core.errors import InputError, ModelError, first_line

__all__ = ["OnnxSession"]

_DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


class OnnxSession:
    """An ONNX classifier on ONNX Runtime.

    Args:
        model: The .onnx file. It has one FP32 or FP16 image input, and its first output is the logits.
        threads: Threads of one operator; None for ONNX Runtime's choice.
        provider: The execution provider.
        provider_options: The provider's options, by name.
        shape: The images of one call, (N, C, H, W), where a dynamic input is to be fixed; None to leave it dynamic.

    Raises:
        InputError: The file is missing, this ONNX Runtime lacks the provider or cannot start it, or ``shape`` does not
            fit the input.
        ModelError: The file cannot be loaded, or does not take one image.
        MissingDependencyError: onnxruntime is not installed.

    Example:
        >>> session = OnnxSession(Path("sparse.onnx"))  # doctest: +SKIP
        >>> session.run(images).shape  # doctest: +SKIP
        (8, 10)
    """

    def __init__(
        self,
        model: Union[Path, OnnxFile],
        threads: Optional[int] = None,
        provider: str = "CPUExecutionProvider",
        provider_options: Optional[Mapping[str, str]] = None,
        shape: Optional[Tuple[int, ...]] = None,
    ) -> None:
        runtime = require("onnxruntime")
        file = OnnxFile.of(model)
        path, proto = file.path, file.graph.model  # checks external data, for which ONNX Runtime's rules differ
        from export.onnxruntime_session import open_session

        known = runtime.get_available_providers()
        if provider not in known:  # ONNX Runtime itself would use the CPU without an error
            raise InputError(f"this ONNX Runtime has no {provider}", f"It has {', '.join(known)}.")
        self._session = open_session(
            str(path),
            str(path),
            proto=proto,
            threads=threads,
            provider=provider,
            provider_options=provider_options,
            sizes=_sizes(proto, shape) if shape else None,
        )
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or inputs[0].type not in _DTYPES:
            found = ", ".join(f"{value.name} {value.type}" for value in inputs)
            raise ModelError(
                f"{path} needs exactly one FP32 or FP16 input, it has: {found or 'none'}", "Give a network of images."
            )
        self.name = path.name
        self.input_name: str = inputs[0].name
        self.input_shape: InputShape = tuple(size if isinstance(size, int) else None for size in inputs[0].shape)
        self._dtype = _DTYPES[inputs[0].type]
        self._outputs: List[str] = [output.name for output in self._session.get_outputs()]
        self._device = "cpu" if provider == "CPUExecutionProvider" else "cuda"
        if shape and self.input_shape != shape:
            raise InputError(
                f"{path} takes images of shape {self.input_shape}, not {shape}",
                "Export it with a fixed or a named batch, and use the data and image size that it was exported for.",
            )

    def nodes_by_provider(self) -> Optional[Dict[str, List[str]]]:
        """Return the names of the nodes that each provider runs; None before ONNX Runtime 1.24, which does not say."""
        if not hasattr(self._session, "get_provider_graph_assignment_info"):
            return None
        found: Dict[str, List[str]] = {}
        for part in self._session.get_provider_graph_assignment_info():
            found.setdefault(part.ep_name, []).extend(node.name or node.op_type for node in part.get_nodes())
        return found

    def bind(self, images: npt.NDArray[Any]) -> Callable[[], None]:
        """Copy images to the provider's device; return a call that runs them and leaves the outputs there.

        Raises:
            InputError: The images' shape does not fit the model, or the device's memory is full.
        """
        check_images(self.name, self.input_shape, images)
        runtime = require("onnxruntime")
        binding = self._session.io_binding()
        try:
            values = np.ascontiguousarray(images, self._dtype)
            binding.bind_ortvalue_input(self.input_name, runtime.OrtValue.ortvalue_from_numpy(values, self._device, 0))
            for name in self._outputs:
                binding.bind_output(name, self._device)
        except Exception as error:
            raise InputError(f"{self.name} cannot take images of shape {images.shape}: {first_line(error)}") from error

        def run() -> None:
            try:
                self._session.run_with_iobinding(binding)
                binding.synchronize_outputs()
            except Exception as error:
                raise InputError(f"{self.name} cannot run images: {first_line(error)}") from error

        return run

    def outputs(self, images: npt.NDArray[Any]) -> Dict[str, npt.NDArray[Any]]:
        """Turn images (N, C, H, W) with any N above 0 into all outputs (N, ...) by name, in the graph's order.

        A model with a fixed batch runs the images in portions. Zeros fill the last one.

        Raises:
            InputError: The images' shape does not fit the model, or an output does not have one row for each image.
        """
        check_images(self.name, self.input_shape, images)
        batch = (self.input_shape[0] if self.input_shape else None) or len(images)
        return join_portions(
            [self._run_one(images[start : start + batch], batch) for start in range(0, len(images), batch)]
        )

    def run(self, images: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Turn images (N, C, H, W) with any N above 0 into logits (N, classes), the first output.

        Raises:
            InputError: As for ``outputs``.
            ModelError: The first output is not (N, classes).
        """
        return logits_of(self.name, self.outputs(images))

    def _run_one(self, images: npt.NDArray[Any], batch: int) -> Dict[str, npt.NDArray[Any]]:
        count = len(images)
        if count < batch:
            images = np.concatenate([images, np.zeros((batch - count, *images.shape[1:]), images.dtype)])
        try:
            found = self._session.run(self._outputs, {self.input_name: images.astype(self._dtype, copy=False)})
        except Exception as error:
            raise InputError(f"{self.name} cannot run images of shape {images.shape}: {first_line(error)}") from error
        return {name: rows_of(self.name, name, value, batch)[:count] for name, value in zip(self._outputs, found)}


def _sizes(model: Any, shape: Tuple[int, ...]) -> Dict[str, int]:
    """Return the sizes of the named dimensions of the graph's first input."""
    weights = {weight.name for weight in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    dims = inputs[0].type.tensor_type.shape.dim if inputs else ()
    return {dim.dim_param: size for dim, size in zip(dims, shape) if dim.dim_param}
