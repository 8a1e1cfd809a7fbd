"""Runs a piece of an ONNX graph in ONNX Runtime, on PyTorch's tensors."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor

from export.audit import embedded, node_name, tensors_read
from export.execution import open_model
from export.importing.segments import Piece
from export.onnxruntime_session import runtime_message
from sparsegpt_core.errors import ModelError

__all__ = ["RuntimeCall", "element_type"]

_TYPES: dict[str, int] = {
    "float": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "bfloat16": TensorProto.BFLOAT16,
    "double": TensorProto.DOUBLE,
    "bool": TensorProto.BOOL,
    "string": TensorProto.STRING,
    **{name: getattr(TensorProto, name.upper()) for name in ("int8", "int16", "int32", "int64")},
    **{name: getattr(TensorProto, name.upper()) for name in ("uint8", "uint16", "uint32", "uint64")},
}


class RuntimeCall:
    """A piece of a graph as a function of tensors.

    Threads may call it at the same time. Each call runs on one thread.

    Args:
        model: The graph that the piece is cut from.
        piece: The piece.
        types: The element types of the tensors that it reads, by name.
        constants: The shapes and types of constants among them, by name. They arrive as (K,) in float32.

    Raises:
        ModelError: ONNX Runtime cannot load the piece.
    """

    __name__ = "runtime_call"  # torch.fx names its nodes by it

    def __init__(
        self,
        model: onnx.ModelProto,
        piece: Piece,
        types: Mapping[str, int],
        constants: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]] = MappingProxyType({}),
    ) -> None:
        self._name = node_name(model.graph.node[piece.nodes[-1]])
        name = f"the graph up to {self._name}"
        session = open_model(_cut(model, piece, types), name, threads=1)
        self._session, self._gives = session, list(piece.gives)
        self._reads = [(name, constants.get(name)) for name in piece.reads]
        self.types = {each.name: element_type(each.type, each.name) for each in session.get_outputs()}
        """The element types of its outputs, by name."""

    def __call__(self, *tensors: Tensor) -> Any:
        """Return the tensor that the piece gives, or a tuple of several.

        Raises:
            ModelError: ONNX Runtime cannot run the piece on these tensors.
        """
        try:
            feeds = {name: _array(x, form) for (name, form), x in zip(self._reads, tensors, strict=True)}
            found = self._session.run(self._gives, feeds)
        except Exception as error:  # ONNX Runtime's error classes share no public base
            raise ModelError(
                f"ONNX Runtime cannot run the graph up to {self._name}: {runtime_message(error)}"
            ) from error
        device = tensors[0].device if tensors else torch.device("cpu")
        outputs = tuple(torch.as_tensor(np.asarray(value), device=device) for value in found)
        return outputs[0] if len(outputs) == 1 else outputs


def element_type(kind: str, name: str) -> int:
    """Return ONNX's number for a type that ONNX Runtime names, such as ``tensor(float)``.

    Raises:
        ModelError: It is not a tensor of numbers.

    Example:
        >>> element_type("tensor(float)", "x") == TensorProto.FLOAT
        True
    """
    inner = kind.removeprefix("tensor(").removesuffix(")")
    if inner not in _TYPES or inner == "string" or not kind.startswith("tensor("):
        raise ModelError(f"{name} is {kind}, not a tensor of numbers", "Cut such outputs and inputs off the graph.")
    return _TYPES[inner]


def _array(tensor: Tensor, form: tuple[tuple[int, ...], np.dtype[Any]] | None) -> Any:
    array = tensor.detach().cpu().numpy()
    return array if form is None else array.reshape(form[0]).astype(form[1])


def _cut(model: onnx.ModelProto, piece: Piece, types: Mapping[str, int]) -> onnx.ModelProto:
    graph = model.graph
    nodes = [graph.node[index] for index in (*piece.constants, *piece.nodes)]
    read = {name for node in nodes for name in tensors_read(node)} - set(piece.reads)
    cut = onnx.GraphProto(
        name=graph.name or "graph",
        node=nodes,
        initializer=[embedded(tensor) for tensor in graph.initializer if tensor.name in read],
        input=[helper.make_tensor_value_info(name, types[name], None) for name in piece.reads],
        output=[helper.make_empty_tensor_value_info(name) for name in piece.gives],
    )
    return onnx.ModelProto(
        ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions, graph=cut
    )
