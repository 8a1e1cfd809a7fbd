"""A model's local functions, unfolded into its graph: they may hold layers, or far more than memory does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx
import onnx.inliner
from google.protobuf.message import DecodeError, EncodeError

from sparsegpt_core.errors import InputError

__all__ = ["inlined"]

_MOST_BYTES = 64 << 20  # more than the model has; functions that call the next one twice reach that in 20 lines
_DEEPEST = 100
_HINT = "Export the model without functions."

Key = tuple[str, str, str]


def inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with its functions unfolded.

    Raises:
        InputError: They cannot be, call themselves, or make a graph that is too large.
    """
    if not model.functions:
        return model
    if _Unfolded(model).size(model.graph.node) > model.ByteSize() + _MOST_BYTES:
        raise InputError("unfolded, the model's local functions are many times as large as the model", _HINT)
    try:
        flat: onnx.ModelProto = onnx.inliner.inline_local_functions(model)
    except (RuntimeError, ValueError, DecodeError, EncodeError, onnx.checker.ValidationError) as error:
        raise InputError(f"the model's local functions cannot be unfolded: {error}", _HINT) from error
    return flat


class _Unfolded:
    """Foretells what functions become, in bytes."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._functions = {(each.domain, each.name, each.overload): each for each in model.functions}
        self._sizes: dict[Key, int] = {}
        self._depth = 0

    def size(self, nodes: Sequence[onnx.NodeProto]) -> int:
        own: int = sum(node.ByteSize() for node in nodes)
        return own + sum(self._called((each.domain, each.op_type, each.overload)) for each in _all_nodes(nodes))

    def _called(self, key: Key) -> int:
        if key not in self._functions:
            return 0
        if key not in self._sizes:
            self._depth += 1
            if self._depth > _DEEPEST:
                raise InputError(f"the model's local functions call each other more than {_DEEPEST} deep", _HINT)
            self._sizes[key] = self.size(self._functions[key].node)
            self._depth -= 1
        return self._sizes[key]


def _all_nodes(nodes: Sequence[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _all_nodes(graph.node)
