"""An engine loaded from a plan, with the names, types and shapes of its tensors."""

from __future__ import annotations

__all__ = ["Engine", "EngineTensor"]

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Optional, SupportsInt, Tuple

import numpy as np

from deploy.builder import EngineLayer, capturing_logger, inspect_engine, load_plan, read_engine_information
from deploy.graph import InputShape, ShapeRange
from deploy.machine import Backend, find_backend
from sparsegpt_core.errors import InputError, ModelError
from sparsegpt_core.interrupts import defer_interrupts

# By name, since trt.nptype fails in old versions on new NumPy.
_DTYPES = {
    "FLOAT": np.float32,
    "HALF": np.float16,
    "INT8": np.int8,
    "UINT8": np.uint8,
    "INT32": np.int32,
    "INT64": np.int64,
    "BOOL": np.bool_,
}


@dataclass(frozen=True)
class EngineTensor:
    """An input or output of an engine."""

    name: str
    """The tensor's name."""
    dtype: np.dtype[Any]
    """The type of its elements."""
    shape: InputShape
    """Its dimensions; None for a dynamic one."""


class Engine:
    """A deserialised plan.

    A CUDA context must be current; see :func:`deploy.machine.connect`.

    Args:
        plan_path: The plan, with its sidecar next to it.
        backend: The backend that runs it; None for the one that built it.

    Raises:
        InputError: The plan does not match its sidecar, or another backend built it.
        ModelError: This TensorRT or this GPU cannot load the plan, or NumPy lacks a tensor's type.
        MissingDependencyError: The backend cannot be imported.

    Example:
        >>> connect()  # doctest: +SKIP
        >>> engine = Engine(Path("sparse.plan"))  # doctest: +SKIP
        >>> engine.profile("input")  # doctest: +SKIP
        ((1, 3, 224, 224), (8, 3, 224, 224), (32, 3, 224, 224))
    """

    def __init__(self, plan_path: Path, backend: Optional[Backend] = None) -> None:
        plan, record = load_plan(plan_path)
        builder = str(record.get("backend"))
        backend = backend or find_backend(builder)
        if backend.name != builder:
            raise InputError(f"{plan_path} is a plan of {builder}, not of {backend.name}", f"Use `backend={builder}`.")
        trt = backend.module
        self.name, self.backend = plan_path.name, backend
        self._logger = capturing_logger(trt)
        self._logger.lines.clear()
        if hasattr(trt, "init_libnvinfer_plugins"):
            trt.init_libnvinfer_plugins(self._logger, "")
        self._runtime: Any = trt.Runtime(self._logger)
        settings = record.get("settings")
        if isinstance(settings, dict) and settings.get("version_compatible"):
            self._runtime.engine_host_code_allowed = True  # such plans contain their own runtime
        with defer_interrupts():  # TensorRT drops what the logger raises
            self._engine: Any = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise ModelError(
                f"{backend.name} {backend.version} cannot load {plan_path}: {self.reason()}",
                f"A plan fits one version ({record.get('backend_version')} built this one) and one GPU: build it here.",
            )
        names = list(map(self._engine.get_tensor_name, range(self._engine.num_io_tensors)))
        is_input = {name: self._engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT for name in names}
        self.inputs = [self._tensor(name) for name in names if is_input[name]]
        self.outputs = [self._tensor(name) for name in names if not is_input[name]]

    def profile(self, name: str) -> ShapeRange:
        """Return the min, opt and max shape of an input."""
        low, best, high = map(_sizes, self._engine.get_tensor_profile_shape(name, 0))
        return low, best, high

    def layers(self) -> Tuple[EngineLayer, ...]:
        """Return the layers as the engine inspector describes them."""
        return inspect_engine(self.backend.module, self._engine)

    def information(self) -> Dict[str, Any]:
        """Return the engine inspector's JSON, with the list ``Layers``."""
        return read_engine_information(self.backend.module, self._engine)

    def create_context(self) -> Any:
        """Create an execution context with the memory that its layers need.

        TensorRT-RTX compiles the kernels of each input shape before their first run, so that no CUDA graph and no
        timing contains its slower fallback kernels.

        Raises:
            InputError: TensorRT cannot create it.
        """
        with defer_interrupts():
            context = self._new_context()
        if context is None:
            raise InputError(
                f"TensorRT cannot create an execution context for {self.name}: {self.reason()}",
                "Build with smaller `shapes`, use fewer `streams`, or end other programs on the GPU.",
            )
        return context

    def close(self) -> None:
        """Free the weights, after the last execution context is freed."""
        self._engine = self._runtime = None

    def reason(self) -> str:
        """Return TensorRT's last error."""
        errors = [text for level, text in self._logger.lines if level.endswith("ERROR")]
        return str(errors[-1]) if errors else "TensorRT does not say why"

    def _new_context(self) -> Any:
        strategies = getattr(self.backend.module, "DynamicShapesKernelSpecializationStrategy", None)
        if strategies is None:  # TensorRT
            return self._engine.create_execution_context()
        config = self._engine.create_runtime_config()
        config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
        return self._engine.create_execution_context(runtime_config=config)

    def _tensor(self, name: str) -> EngineTensor:
        kind = self._engine.get_tensor_dtype(name).name
        if kind not in _DTYPES:
            raise ModelError(f"tensor '{name}' of {self.name} is {kind}", f"Export it as one of: {', '.join(_DTYPES)}.")
        sizes = _sizes(self._engine.get_tensor_shape(name))
        return EngineTensor(name, np.dtype(_DTYPES[kind]), tuple(None if size < 0 else size for size in sizes))


def _sizes(dims: Iterable[SupportsInt]) -> Tuple[int, ...]:
    return tuple(int(size) for size in dims)
