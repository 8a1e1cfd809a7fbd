"""Which weighted nodes are heads: no other weighted node comes after them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import onnx

from export.audit import tensors_read
from export.importing.weighted_nodes import WeightedNode

__all__ = ["find_heads"]


def find_heads(graph: onnx.GraphProto, order: Sequence[int], weighted: Iterable[WeightedNode]) -> set[int]:
    """Return the indices of the weighted nodes that an output depends on and after which no other one comes.

    Args:
        graph: The graph.
        order: Indices of its nodes in running order.
        weighted: Its weighted nodes. One whose weight is not trained is a formula and does not count.

    Example:
        >>> import onnx.parser
        >>> from export.importing.stored_tensors import StoredTensors
        >>> from export.importing.weighted_nodes import find_weighted_nodes
        >>> graph = onnx.parser.parse_graph('''
        ...     g (float[N, 1] x) => (float[N, 1] y) <float[1, 1] w = {0.5}> { a = MatMul(x, w)  y = MatMul(a, w) }
        ... ''')
        >>> find_heads(graph, [0, 1], find_weighted_nodes(graph, StoredTensors(graph), [0, 1]))
        {1}
    """
    trained = {each.index for each in weighted if each.is_trained}
    last: dict[str, set[int]] = {}  # by tensor the weighted nodes that no other one follows on the way to it
    followed: set[int] = set()
    for index in order:
        node = graph.node[index]
        sources = set().union(*(last.get(name, set()) for name in tensors_read(node)))
        if index in trained:
            followed |= sources
            sources = {index}
        for name in node.output:
            last[name] = sources
    return set().union(*(last.get(each.name, set()) for each in graph.output)) - followed
