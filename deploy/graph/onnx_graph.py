"""Reads from an ONNX file what an engine build needs before TensorRT parses it."""

from __future__ import annotations

__all__ = ["Graph", "InputShape", "read_graph", "type_name"]

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Optional, Tuple

import numpy as np

from deploy.machine import require
from sparsegpt_core.errors import ModelError

InputShape = Tuple[Optional[int], ...]
"""An input's dimensions; None for a dynamic one."""


@dataclass(frozen=True)
class Graph:
    """An ONNX model and the types of its tensors."""

    model: Any
    """The ``onnx.ModelProto``, as ``export.audit.map_model`` returns it."""
    inputs: Mapping[str, InputShape]
    """Shapes by input name."""
    types: frozenset[str]
    """ONNX's names of the weights' data types, such as ``FLOAT16``."""
    quantized: bool
    """Whether the graph has DequantizeLinear nodes."""

    @property
    def input_types(self) -> Dict[str, np.dtype[Any]]:
        """NumPy's type of each input, by name."""
        as_numpy = require("onnx").helper.tensor_dtype_to_np_dtype
        kinds = {value.name: value.type.tensor_type.elem_type for value in self.model.graph.input}
        return {name: as_numpy(kinds[name]) for name in self.inputs}

    @property
    def fp16(self) -> bool:
        """Whether any weight is FP16."""
        return "FLOAT16" in self.types

    @property
    def precision(self) -> str:
        """``INT8`` for a graph with Q/DQ nodes, else ``FP16``, ``BF16`` or ``FP32`` by its weights."""
        if self.quantized:
            return "INT8"
        return "FP16" if self.fp16 else "BF16" if "BFLOAT16" in self.types else "FP32"

    @property
    def has_sparse_kernels(self) -> bool:
        """Whether the graph has a precision for which 2:4 kernels exist."""
        return self.precision != "FP32"


def read_graph(path: Path) -> Graph:
    """Read an ONNX file. Large weights stay in its external data.

    Raises:
        InputError: The file is missing, damaged or empty, or is not an ONNX model.
        MissingDependencyError: onnx is not installed.

    Example:
        >>> import onnx
        >>> model = onnx.parser.parse_model('''
        ...     <ir_version: 8, opset_import: ["": 17]>
        ...     g (float16[N, 2] x) => (float16[N, 1] y) <float16[2, 1] w = {1, 0}> { y = MatMul(x, w) }''')
        >>> onnx.save(model, "model.onnx")
        >>> graph = read_graph(Path("model.onnx"))
        >>> dict(graph.inputs), graph.has_sparse_kernels
        ({'x': (None, 2)}, True)
    """
    require("onnx")
    from export.audit import graph_inputs, map_model

    model = map_model(path)
    return Graph(
        model=model,
        inputs={value.name: _shape(value) for value in graph_inputs(model.graph)},
        types=frozenset(type_name(tensor.data_type) for tensor in _constants(model.graph)),
        quantized=any(node.op_type == "DequantizeLinear" for node in model.graph.node),
    )


def type_name(number: int) -> str:
    """Return ONNX's name of a data type, such as ``FLOAT16`` for 10.

    Raises:
        ModelError: The installed onnx has no such type.
    """
    types = require("onnx").TensorProto.DataType
    if number not in types.values():
        raise ModelError(f"a tensor is of type {number}, which this onnx does not know", "Install a newer onnx.")
    return str(types.Name(number))


def _shape(value: Any) -> InputShape:
    dims = value.type.tensor_type.shape.dim
    return tuple(dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None for dim in dims)


def _constants(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for node in graph.node:
        if node.op_type == "Constant":
            yield from (attribute.t for attribute in node.attribute if attribute.name == "value")
