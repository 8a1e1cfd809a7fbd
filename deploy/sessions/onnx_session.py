"""An ONNX file as a session on ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple, Union

import numpy as np
import numpy.typing as npt

from deploy.graph import InputShape, OnnxFile
from deploy.machine import require
from deploy.sessions.session import cast_inputs, check_inputs, join_portions, logits_of, rows_of
from sparsegpt_core.errors import InputError, ModelError
from sparsegpt_core.named_inputs import Arrays

__all__ = ["OnnxSession"]

_DTYPES: Dict[str, np.dtype[Any]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(bool)": np.dtype(np.bool_),
    **{f"tensor({sign}int{bits})": np.dtype(f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)},
}


class OnnxSession:
    """An ONNX network on ONNX Runtime.

    Args:
        model: The .onnx file. Its inputs are FP32, FP16, integers or booleans.
        threads: Threads of one operator; None for ONNX Runtime's choice.
        provider: The execution provider.
        provider_options: The provider's options, by name.
        shapes: The shape of each input in one call, by name, where dynamic inputs are to be fixed; None to leave them
            dynamic.
        pack: Whether ONNX Runtime may copy weights into its kernels' layout, which is faster. Without it, external data
            needs no memory of its own.

    Raises:
        InputError: The file is missing, this ONNX Runtime lacks the provider or cannot start it, or ``shapes`` do not
            fit the inputs.
        ModelError: The file cannot be loaded, or it has inputs of other types.
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
        shapes: Optional[Mapping[str, Tuple[int, ...]]] = None,
        pack: bool = True,
    ) -> None:
        runtime = require("onnxruntime")
        file = OnnxFile.of(model)
        path, proto = file.path, file.graph.model  # checks external data, for which ONNX Runtime's rules differ
        from export.onnxruntime_session import open_session, uses_fp16

        known = runtime.get_available_providers()
        if provider not in known:  # ONNX Runtime itself would use the CPU without an error
            raise InputError(f"this ONNX Runtime has no {provider}", f"It has {', '.join(known)}.")
        self._session = open_session(
            str(path),
            str(path),
            half=uses_fp16(proto),
            threads=threads,
            provider=provider,
            provider_options=provider_options,
            sizes=_sizes(proto, shapes) if shapes else None,
            pack=pack,
        )
        inputs = self._session.get_inputs()
        if not inputs or any(value.type not in _DTYPES for value in inputs):
            found = ", ".join(f"{value.name} {value.type}" for value in inputs)
            raise ModelError(
                f"{path} needs FP32, FP16, integer or boolean inputs, it has: {found or 'none'}",
                "Give a network of images.",
            )
        self.name = path.name
        self.input_shapes: Dict[str, InputShape] = {
            value.name: tuple(size if isinstance(size, int) else None for size in value.shape) for value in inputs
        }
        self._dtypes = {value.name: _DTYPES[value.type] for value in inputs}
        self._outputs: List[str] = [output.name for output in self._session.get_outputs()]
        self._device = "cpu" if provider == "CPUExecutionProvider" else "cuda"
        for name, shape in (shapes or {}).items():
            if self.input_shapes.get(name) != shape:
                what = "images" if len(inputs) == 1 else name
                raise InputError(
                    f"{path} takes {what} of shape {self.input_shapes.get(name)}, not {shape}",
                    "Export it with a fixed or named batch, and use the data and image size that it was exported for.",
                )

    def nodes_by_provider(self) -> Optional[Dict[str, List[str]]]:
        """Return the names of the nodes that each provider runs; None before ONNX Runtime 1.24, which does not say."""
        if not hasattr(self._session, "get_provider_graph_assignment_info"):
            return None
        found: Dict[str, List[str]] = {}
        for part in self._session.get_provider_graph_assignment_info():
            found.setdefault(part.ep_name, []).extend(node.name or node.op_type for node in part.get_nodes())
        return found

    def bind(self, images: Arrays) -> Callable[[], None]:
        """Copy images to the provider's device; return a call that runs them and leaves the outputs there.

        Raises:
            InputError: The images' shape does not fit the model, or the device's memory is full.
        """
        arrays = self._arrays(images)
        runtime = require("onnxruntime")
        binding = self._session.io_binding()
        try:
            for name, values in arrays.items():
                value = runtime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(values), self._device, 0)
                binding.bind_ortvalue_input(name, value)
            for name in self._outputs:
                binding.bind_output(name, self._device)
        except Exception as error:
            raise InputError(f"{self.name} cannot take {_shapes(arrays)}: {_message(error)}") from error

        def run() -> None:
            try:
                self._session.run_with_iobinding(binding)
                binding.synchronize_outputs()
            except Exception as error:
                raise InputError(f"{self.name} cannot run images: {_message(error)}") from error

        return run

    def outputs(self, images: Arrays) -> Dict[str, npt.NDArray[Any]]:
        """Turn images (N, C, H, W) with any N above 0 into all outputs (N, ...) by name, in the graph's order.

        Several inputs are :class:`~sparsegpt_core.named_inputs.NamedInputs`.

        A model with a fixed batch runs the images in portions. Zeros fill the last one.

        Raises:
            InputError: The images' shape does not fit the model, or an output does not have one row for each image.
        """
        arrays, count = self._arrays(images), len(images)
        batch = next((shape[0] for shape in self.input_shapes.values() if shape and shape[0]), count)
        return join_portions(
            [
                self._run_one({name: values[start : start + batch] for name, values in arrays.items()}, batch)
                for start in range(0, count, batch)
            ]
        )

    def run(self, images: Arrays) -> npt.NDArray[np.float32]:
        """Turn images (N, C, H, W) with any N above 0 into logits (N, classes), the first output.

        Raises:
            InputError: As for ``outputs``.
            ModelError: The first output is not (N, classes).
        """
        return logits_of(self.name, self.outputs(images))

    def _arrays(self, images: Arrays) -> Dict[str, npt.NDArray[Any]]:
        return cast_inputs(self.name, self._dtypes, check_inputs(self.name, self.input_shapes, images))

    def _run_one(self, arrays: Dict[str, npt.NDArray[Any]], batch: int) -> Dict[str, npt.NDArray[Any]]:
        count = len(next(iter(arrays.values())))
        if count < batch:
            arrays = {
                name: np.concatenate([values, np.zeros((batch - count, *values.shape[1:]), values.dtype)])
                for name, values in arrays.items()
            }
        try:
            found = self._session.run(self._outputs, arrays)
        except Exception as error:
            raise InputError(f"{self.name} cannot run {_shapes(arrays)}: {_message(error)}") from error
        return {name: rows_of(self.name, name, value, batch)[:count] for name, value in zip(self._outputs, found)}


def _message(error: Exception) -> str:
    from export.onnxruntime_session import runtime_message

    return runtime_message(error)


def _shapes(arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    shapes = [f"{name} {values.shape}" for name, values in arrays.items()]
    return ", ".join(shapes) if len(shapes) > 1 else f"images of shape {next(iter(arrays.values())).shape}"


def _sizes(model: Any, shapes: Mapping[str, Tuple[int, ...]]) -> Dict[str, int]:
    """Return the sizes of the named dimensions of the graph's inputs."""
    inputs = [value for value in model.graph.input if value.name in shapes]
    dims = [(dim, size) for each in inputs for dim, size in zip(each.type.tensor_type.shape.dim, shapes[each.name])]
    return {dim.dim_param: size for dim, size in dims if dim.dim_param}
