"""ONNX Runtime on the CPU, for the exporter's own checks."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx.shape_inference import infer_shapes

from export.writing import save_model
from sparsegpt_core.errors import ModelError, first_line

__all__ = ["CpuSession", "fits", "tensor_types"]

Array = npt.NDArray[Any]

_FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}
_LIMIT = 2_000_000_000  # bytes of weights: protobuf's 2 GiB less room for the graph


class CpuSession:
    """A model, ready to run.

    Args:
        model: A file, or a model in memory of any size.
        name: What to call it in messages.
        optimize: Let ONNX Runtime fuse nodes; without it every node computes what the file says.

    Raises:
        ModelError: ONNX Runtime cannot load it.
    """

    def __init__(self, model: Path | onnx.ModelProto, name: str, optimize: bool = True) -> None:
        self._name = name
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # fatal: errors are raised as well
        if not optimize:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            if isinstance(model, Path):
                self._session = _session(str(model), options)
            elif fits(model):
                self._session = _session(model.SerializeToString(), options)
            else:
                with tempfile.TemporaryDirectory() as folder:
                    path = Path(folder, "model.onnx")
                    save_model(model, path)
                    self._session = _session(str(path), options)
        except Exception as error:  # onnxruntime's own exception classes share no public base
            raise self._error(error) from error
        self.inputs = [each.name for each in self._session.get_inputs()]
        self.outputs = [each.name for each in self._session.get_outputs()]

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """Return all outputs; floating inputs are given the type that the graph wants.

        Raises:
            ModelError: The inputs do not fit the model.
        """
        try:
            feeds = {each.name: _typed(value, each.type) for each, value in zip(self._session.get_inputs(), inputs)}
            outputs: list[Array] = self._session.run(None, feeds)
        except Exception as error:
            raise self._error(error) from error
        return outputs

    def _error(self, error: Exception) -> ModelError:
        return ModelError(
            f"ONNX Runtime cannot run {self._name}: {first_line(error)}", "Give a file exported from this model."
        )


def fits(model: onnx.ModelProto) -> bool:
    """Say whether the model is small enough for what takes one message, such as shape inference."""
    size: int = sum(
        math.prod(tensor.dims) * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        for tensor in model.graph.initializer
    )
    return size < _LIMIT


def tensor_types(model: onnx.ModelProto) -> dict[str, int]:
    """Return the element types of the graph's inputs and of all that its nodes compute, as far as they are known."""
    if fits(model):  # the exporter notes most types; shape inference, within its limit, the rest
        model = infer_shapes(model)
    computed = {name for node in model.graph.node for name in node.output}
    noted = [each for each in (*model.graph.value_info, *model.graph.output) if each.name in computed]
    return {each.name: each.type.tensor_type.elem_type for each in (*model.graph.input, *noted)}


def _session(model: str | bytes, options: Any) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _typed(value: Array, kind: str) -> Array:
    with np.errstate(over="ignore"):
        return value.astype(_FLOATS[kind]) if kind in _FLOATS and value.dtype != _FLOATS[kind] else value
