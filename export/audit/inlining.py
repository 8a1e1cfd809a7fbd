"""Inlines a model's local functions into its graph: they may contain layers. Refuses graphs that would be too large."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx
import onnx.inliner
from google.protobuf.message import DecodeError, EncodeError

from sparsegpt_core.errors import InputError

__all__ = ["inlined"]

_MAX_ADDED_BYTES = 64 << 20  # 20 functions that each call the next one twice would exceed it
_MAX_DEPTH = 100  # functions that call each other
_HINT = "Export the model without functions."

Key = tuple[str, str, str]


def inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with its functions inlined.

    Raises:
        InputError: The functions cannot be inlined, call themselves, or make a graph that is too large.

    Example:
        >>> import onnx.parser
        >>> model = onnx.parser.parse_model('''
        ...     <ir_version: 8, opset_import: ["": 17, "f": 1]> g (float[N] x) => (float[N] y) { y = f.twice(x) }
        ...     <domain: "f", opset_import: ["": 17]> twice (a) => (b) { b = Add(a, a) }
        ... ''')
        >>> [node.op_type for node in inlined(model).graph.node]
        ['Add']
    """
    if not model.functions:
        return model
    if _InlinedSize(model).of(model.graph.node) > model.ByteSize() + _MAX_ADDED_BYTES:
        raise InputError("inlining the model's local functions would make it many times as large", _HINT)
    try:
        flat: onnx.ModelProto = onnx.inliner.inline_local_functions(model)
    except (RuntimeError, ValueError, DecodeError, EncodeError, onnx.checker.ValidationError) as error:
        raise InputError(f"the model's local functions cannot be inlined: {error}", _HINT) from error
    return flat


class _InlinedSize:
    """Predicts the size of the inlined graph in bytes."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._functions = {(each.domain, each.name, each.overload): each for each in model.functions}
        self._sizes: dict[Key, int] = {}
        self._depth = 0

    def of(self, nodes: Sequence[onnx.NodeProto]) -> int:
        own: int = sum(node.ByteSize() for node in nodes)
        return own + sum(self._of_call((each.domain, each.op_type, each.overload)) for each in _all_nodes(nodes))

    def _of_call(self, key: Key) -> int:
        if key not in self._functions:
            return 0
        if key not in self._sizes:
            self._depth += 1
            if self._depth > _MAX_DEPTH:
                raise InputError(f"the model's local functions call each other more than {_MAX_DEPTH} deep", _HINT)
            self._sizes[key] = self.of(self._functions[key].node)
            self._depth -= 1
        return self._sizes[key]


def _all_nodes(nodes: Sequence[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _all_nodes(graph.node)
