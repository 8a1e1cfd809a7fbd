"""Weights that several nodes of an ONNX graph read: pruned once for all of them, or left dense."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import onnx
import torch

from export.importing.stored_tensors import StoredTensors
from export.importing.weighted_nodes import WeightedNode
from sparsegpt_core.reasons import Reason

__all__ = ["layer_names", "settle_sharing"]


def settle_sharing(
    weighted: Sequence[WeightedNode], tensors: StoredTensors, graph: onnx.GraphProto, varying: set[str]
) -> list[WeightedNode]:
    """Give a reason to nodes that multiply constants, and to those whose weight is not theirs alone.

    It is not where another operation reads it too, or where it is not in the file's own graph.

    Args:
        weighted: The weighted nodes of the graph, with functions inlined.
        tensors: The tensors of that graph.
        graph: The file's own graph.
        varying: The tensors that are no constants.

    Example:
        >>> import onnx.parser
        >>> from export.importing.weighted_nodes import find_weighted_nodes
        >>> graph = onnx.parser.parse_graph('''
        ...     g (float[N, 1] x) => (float[N, 1] y, float[1, 1] z)
        ...     <float[1, 1] w = {0.5}> { y = MatMul(x, w)  z = Abs(w) }
        ... ''')
        >>> tensors = StoredTensors(graph)
        >>> (node,) = settle_sharing(find_weighted_nodes(graph, tensors, [0, 1]), tensors, graph, {"x", "y"})
        >>> node.reason.value
        'READ_ELSEWHERE'
    """
    stored = {tensor.name for tensor in graph.initializer} | {name for node in graph.node for name in node.output}
    users: dict[str, list[WeightedNode]] = {}
    for node in weighted:
        if node.weight is not None:
            users.setdefault(node.weight.name, []).append(node)
    settled = []
    for node in weighted:
        reason = node.reason
        if node.weight is not None:
            own = users[node.weight.name]
            if node.data not in varying:
                reason = Reason.NOT_REACHED
            elif node.weight.name not in stored:
                reason = Reason.IN_SUBGRAPH
            elif tensors.readers(node.weight.name) != {each.index for each in own} or not all(
                _same_layer(each, own[0]) for each in own
            ):
                reason = Reason.READ_ELSEWHERE
            if node.reason is Reason.GROUPED:  # which it stays; its weight changes only if it is its own
                is_own = reason is Reason.GROUPED and len(own) == 1
                settled.append(node if is_own else replace(node, weight=None))
                continue
        settled.append(replace(node, reason=reason))
    return settled


def layer_names(weighted: Iterable[WeightedNode]) -> dict[int, str]:
    """Return the layer's name for each node whose weight can change: that of the first node with this weight.

    Returns:
        Names by index: of nodes that can be pruned, and of grouped convolutions with a weight of their own.

    Example:
        >>> layer_names([])
        {}
    """
    owners: dict[str, str] = {}
    names = {}
    for node in weighted:
        if node.reason in (None, Reason.GROUPED) and node.weight is not None:
            names[node.index] = owners.setdefault(node.weight.name, node.name)
    return names


def _same_layer(a: WeightedNode, b: WeightedNode) -> bool:
    return a is b or (
        str(a.layer) == str(b.layer)
        and (a.transposed, a.bias, a.before, a.after) == (b.transposed, b.bias, b.before, b.after)
        and torch.equal(a.prunable.weight, b.prunable.weight)
    )
