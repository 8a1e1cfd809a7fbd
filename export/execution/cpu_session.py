"""ONNX Runtime on the CPU, for the exporter's own checks."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import onnx
from onnx.shape_inference import infer_shapes
from torch import Tensor

from export.onnxruntime_session import open_session, runtime_message, uses_fp16
from export.writing import fits_in_protobuf, is_large, save_model
from sparsegpt_core.errors import ModelError
from sparsegpt_core.named_inputs import to_bytes

__all__ = ["FEW_SAMPLES", "CpuSession", "first_samples", "inferred", "open_model", "tensor_types"]

Array = npt.NDArray[Any]

Sliced = TypeVar("Sliced", Array, Tensor)

FEW_SAMPLES = 4
"""The samples of a check that goes on to all of them where its figures are not far from their limits."""

_LARGE = 1024  # numbers; shape inference reads the values of shapes, axes and sizes alone
_FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}


class CpuSession:
    """A model that is ready to run.

    Args:
        model: A file, or a model in memory of any size.
        name: The model's name in messages.
        optimize: Whether ONNX Runtime may fuse nodes. Without it, every node computes what the file says.
        half: Whether a value of the file is FP16, if the caller knows it; else the file is read once more.

    Raises:
        ModelError: ONNX Runtime cannot load the model.

    Example:
        >>> import numpy as np
        >>> from torch import nn
        >>> from export.writing import export_model
        >>> session = CpuSession(export_model(nn.Conv2d(1, 2, 1).eval(), (1, 4, 4)), "conv")
        >>> session.inputs, session.outputs
        (['input'], ['output'])
        >>> session.run([np.zeros((3, 1, 4, 4), np.float32)])[0].shape
        (3, 2, 4, 4)
    """

    def __init__(
        self, model: Path | onnx.ModelProto, name: str, optimize: bool = True, half: bool | None = None
    ) -> None:
        self._name = name
        if isinstance(model, Path):
            self._session = open_session(str(model), name, optimize=optimize, pack=not is_large(model), half=half)
        else:
            self._session = open_model(model, name, optimize=optimize)
        self.inputs = [each.name for each in self._session.get_inputs()]
        self.outputs = [each.name for each in self._session.get_outputs()]

    def run(self, inputs: Sequence[Array], outputs: Sequence[str] | None = None) -> list[Array]:
        """Run the model. Floating-point inputs are cast to the type that the graph wants.

        A model with a fixed batch runs in portions, whose outputs are joined along the first axis. Copies of the last
        sample fill the last portion.

        Args:
            inputs: One array (N, ...) for each input of the graph.
            outputs: The names of the outputs to return; None for all.

        Raises:
            ModelError: The inputs do not fit the model.
        """
        try:
            feeds = {each.name: _typed(value, each.type) for each, value in zip(self._session.get_inputs(), inputs)}
            return self._run_portions(feeds, outputs)
        except Exception as error:  # ONNX Runtime's error classes share no public base
            raise ModelError(
                f"ONNX Runtime cannot run {self._name}: {runtime_message(error)}",
                "Give a file exported from this model.",
            ) from error

    def _run_portions(self, feeds: dict[str, Array], outputs: Sequence[str] | None) -> list[Array]:
        sizes = [each.shape[0] for each in self._session.get_inputs() if each.shape]
        batch = next((size for size in sizes if isinstance(size, int)), 0)
        count = len(next(iter(feeds.values()))) if batch else 0
        if batch == count:
            whole: list[Array] = self._session.run(outputs, feeds)
            return whole
        portions, missing = -(-count // batch), -count % batch
        split = {
            name: np.split(_filled(value, missing * len(value) // count), portions) for name, value in feeds.items()
        }
        runs = [
            self._session.run(outputs, {name: parts[place] for name, parts in split.items()})
            for place in range(portions)
        ]
        joined = [np.concatenate([np.atleast_1d(part) for part in parts]) for parts in zip(*runs)]
        rows = [len(value) // portions for value in joined]  # of a portion; not all tensors have rows for each sample
        return [value if size % batch else value[: size // batch * count] for value, size in zip(joined, rows)]


def first_samples(inputs: Sequence[Sliced], count: int) -> list[Sliced]:
    """Return the first samples of each input; inputs without an axis of samples whole.

    Example:
        >>> [len(each) for each in first_samples([np.zeros((8, 3)), np.zeros((5, 2))], 4)]
        [4, 5]
    """
    samples = len(inputs[0])
    return [each[:count] if len(each) == samples else each for each in inputs]


def open_model(model: onnx.ModelProto, name: str, **options: Any) -> Any:
    """Open a model in memory, of any size, in ONNX Runtime.

    Args:
        model: The model.
        name: The model's name in messages.
        options: Arguments of :func:`~export.onnxruntime_session.open_session`.

    Returns:
        An ``onnxruntime.InferenceSession``.

    Raises:
        ModelError: ONNX Runtime cannot load the model.

    Example:
        >>> from torch import nn
        >>> from export.writing import export_model
        >>> open_model(export_model(nn.ReLU(), (1, 4, 4)), "relu").get_inputs()[0].type
        'tensor(float)'
    """
    if not is_large(model):
        return open_session(model.SerializeToString(), name, half=uses_fp16(model), **options)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        save_model(model, path, limit=0)
        return open_session(str(path), name, half=uses_fp16(model), pack=False, **options)


def inferred(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model with the shapes and types that onnx infers, without the values of large weights: a graph alone.

    Example:
        >>> from torch import nn
        >>> from export.writing import export_model
        >>> graph = inferred(export_model(nn.Linear(64, 64), (1, 4, 64))).graph
        >>> [(tensor.name, len(tensor.raw_data)) for tensor in graph.initializer], len(graph.value_info) > 0
        ([('bias', 256), ('val_0', 0)], True)
    """
    graph = onnx.GraphProto(
        name=model.graph.name,
        node=model.graph.node,
        input=model.graph.input,
        output=model.graph.output,
        value_info=model.graph.value_info,
        sparse_initializer=model.graph.sparse_initializer,
    )
    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) > _LARGE:
            graph.initializer.add(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
        else:
            graph.initializer.add().CopyFrom(tensor)
    return infer_shapes(
        onnx.ModelProto(
            ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions, graph=graph
        )
    )


def tensor_types(model: onnx.ModelProto) -> dict[str, int]:
    """Return the element types of the graph's inputs and of its nodes' outputs, where they are known.

    Returns:
        Values of ``onnx.TensorProto.DataType`` by tensor name.

    Example:
        >>> from torch import nn
        >>> from export.writing import export_model
        >>> tensor_types(export_model(nn.ReLU(), (1, 4, 4)))  # 1 is FLOAT
        {'input': 1, 'output': 1}
    """
    if fits_in_protobuf(model):
        model = inferred(model)  # it adds the types that the exporter left out
    computed = {name for node in model.graph.node for name in node.output}
    typed = [each for each in (*model.graph.value_info, *model.graph.output) if each.name in computed]
    return {each.name: each.type.tensor_type.elem_type for each in (*model.graph.input, *typed)}


def _typed(value: Array, kind: str) -> Array:
    if kind == "tensor(uint8)" and value.dtype.kind == "f":
        return to_bytes(value)
    with np.errstate(over="ignore"):
        return value.astype(_FLOATS[kind]) if kind in _FLOATS and value.dtype != _FLOATS[kind] else value


def _filled(value: Array, missing: int) -> Array:
    return np.concatenate([value, np.repeat(value[-1:], missing, axis=0)]) if missing else value
