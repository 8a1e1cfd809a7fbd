"""Cuts an ONNX graph in front of and after some of its nodes, into pieces that run in ONNX Runtime."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import onnx

from export.audit import graph_inputs, tensors_read
from sparsegpt_core.errors import ModelError

__all__ = ["Piece", "cut_graph", "sorted_nodes", "varying_tensors"]

_RANDOM = {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial"}


@dataclass(frozen=True)
class Piece:
    """A node to cut out, or a connected part of the graph without such nodes."""

    nodes: tuple[int, ...]
    """Indices into the graph's nodes, in running order."""
    reads: tuple[str, ...]
    """Tensors that other pieces or the graph's inputs give it."""
    gives: tuple[str, ...]
    """Tensors that other pieces read, and outputs of the graph."""
    constants: tuple[int, ...]
    """Indices of the nodes that compute constants for it, in running order."""


def sorted_nodes(graph: onnx.GraphProto) -> list[int]:
    """Return the indices of the graph's nodes in running order; the file's order if that is one.

    Raises:
        ModelError: The nodes depend on each other in a circle.

    Example:
        >>> import onnx.parser
        >>> sorted_nodes(onnx.parser.parse_graph("g (float[N] x) => (float[N] y) { y = Relu(a)  a = Relu(x) }"))
        [1, 0]
    """
    makers = {output: index for index, node in enumerate(graph.node) for output in node.output if output}
    needs = [{makers[name] for name in tensors_read(node) if name in makers} for node in graph.node]
    return _in_order(needs, list(range(len(needs))))


def cut_graph(graph: onnx.GraphProto, cuts: Iterable[int], inputs: Iterable[str] = ()) -> list[Piece]:
    """Cut a graph in front of and after some of its nodes.

    Args:
        graph: The graph.
        cuts: Indices of the nodes to cut out. Each becomes a piece of its own, unless it computes a constant.
        inputs: Constants that pieces read from outside, so that they can change.

    Returns:
        The pieces in running order. Nodes that the outputs do not depend on are in none.

    Raises:
        ModelError: The nodes depend on each other in a circle.

    Example:
        >>> import onnx.parser
        >>> graph = onnx.parser.parse_graph('''
        ...     g (float[N, 2] x) => (float[N, 2] y)
        ...     <float[2, 2] w = {1.0, 2.0, 3.0, 4.0}> { a = Relu(x)  b = Abs(a)  c = MatMul(b, w)  y = Add(c, a) }
        ... ''')
        >>> [(piece.nodes, piece.reads, piece.gives) for piece in cut_graph(graph, [2])]
        [((0, 1), ('x',), ('a', 'b')), ((2,), ('b',), ('c',)), ((3,), ('c', 'a'), ('y',))]
    """
    order, own = sorted_nodes(graph), set(cuts)
    place = {index: number for number, index in enumerate(order)}
    varying = varying_tensors(graph, order, inputs)
    constant = {index for index in order if varying.isdisjoint(graph.node[index].output)}
    makers = {output: index for index in order for output in graph.node[index].output if output}
    reads = {index: _reads(graph.node[index]) for index in order}
    needed = _needed(graph, order, reads)
    running = [index for index in order if index in needed and index not in constant]
    groups = _groups(running, reads, makers, own, constant)

    readers: dict[str, set[int]] = {}  # by tensor the groups that read it
    for index in running:
        for name in reads[index]:
            readers.setdefault(name, set()).add(groups[index])
    outputs = {value.name for value in graph.output}
    members: dict[int, list[int]] = {}
    for index in running:
        members.setdefault(groups[index], []).append(index)
    pieces = []
    for group, nodes in members.items():
        made = {output for index in nodes for output in graph.node[index].output}
        read = dict.fromkeys(name for index in nodes for name in reads[index] if name not in made)
        outer = [name for name in read if name in varying]
        gives = [
            name
            for index in nodes
            for name in graph.node[index].output
            if name and (name in outputs or readers.get(name, set()) - {group})
        ]
        constants = sorted(_constants_for(read.keys() - set(outer), makers, constant, reads), key=place.__getitem__)
        pieces.append(Piece(tuple(nodes), tuple(outer), tuple(gives), tuple(constants)))
    return _sorted_pieces(pieces, makers, groups, list(members))


def varying_tensors(graph: onnx.GraphProto, order: Sequence[int], inputs: Iterable[str] = ()) -> set[str]:
    """Return the tensors that pieces may hand over: inputs of the graph, what depends on them, and its outputs.

    All others are constants. Each piece that reads one computes it again.

    Args:
        graph: The graph.
        order: Indices of its nodes in running order.
        inputs: Constants that pieces read from outside.

    Example:
        >>> import onnx.parser
        >>> graph = onnx.parser.parse_graph(
        ...     "g (float[N] x) => (float[N] y) <float w = {1}> { a = Abs(w)  y = Add(x, a) }"
        ... )
        >>> sorted(varying_tensors(graph, [0, 1]))
        ['x', 'y']
    """
    varying = {value.name for value in graph_inputs(graph)} | set(inputs)
    outputs = {value.name for value in graph.output}
    for index in order:
        node = graph.node[index]
        is_read = not varying.isdisjoint(tensors_read(node))
        if is_read or node.op_type in _RANDOM or not outputs.isdisjoint(node.output):
            varying.update(filter(None, node.output))
    return varying


def _reads(node: onnx.NodeProto) -> list[str]:
    return list(dict.fromkeys(tensors_read(node)))


def _needed(graph: onnx.GraphProto, order: Sequence[int], reads: Mapping[int, list[str]]) -> set[int]:
    """The nodes that the outputs depend on."""
    wanted, needed = {value.name for value in graph.output}, set[int]()
    for index in reversed(order):
        if not wanted.isdisjoint(graph.node[index].output):
            needed.add(index)
            wanted.update(reads[index])
    return needed


def _groups(
    running: Sequence[int],
    reads: Mapping[int, list[str]],
    makers: Mapping[str, int],
    cuts: set[int],
    constant: set[int],
) -> dict[int, int]:
    """Number the connected parts between cuts. Parts never wait for each other in a circle.

    A node's level counts the cuts on the longest way to it. Nodes of one level that are connected are one part, and a
    part reads nothing of a higher level.
    """
    level: dict[int, int] = {}
    parent: dict[int, int] = {index: index for index in running}

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    for index in running:
        before = {makers[name] for name in reads[index] if name in makers and makers[name] not in constant}
        level[index] = max((level[each] + (each in cuts) for each in before), default=0)
        if index not in cuts:
            for each in before - cuts:
                if level[each] == level[index]:
                    parent[root(index)] = root(each)
    return {index: root(index) for index in running}


def _constants_for(
    read: Iterable[str], makers: Mapping[str, int], constant: set[int], reads: Mapping[int, list[str]]
) -> set[int]:
    """The nodes that compute the constants among ``read``."""
    found: set[int] = set()
    todo = [*read]
    while todo:
        name = todo.pop()
        if name in makers and makers[name] in constant and makers[name] not in found:
            found.add(makers[name])
            todo += reads[makers[name]]
    return found


def _sorted_pieces(
    pieces: Sequence[Piece], makers: Mapping[str, int], groups: Mapping[int, int], names: Sequence[int]
) -> list[Piece]:
    number = {group: index for index, group in enumerate(names)}
    needs = [{number[groups[makers[name]]] for name in piece.reads if makers.get(name) in groups} for piece in pieces]
    return [pieces[index] for index in _in_order(needs, [piece.nodes[0] for piece in pieces])]


def _in_order(needs: Sequence[set[int]], priority: Sequence[int]) -> list[int]:
    """Sort items so that each comes after those that it needs; among those that are ready, by priority."""
    waiting = [len(each) for each in needs]
    users: list[list[int]] = [[] for _ in needs]
    for index, each in enumerate(needs):
        for other in each:
            users[other].append(index)
    ready = [(priority[index], index) for index, count in enumerate(waiting) if not count]
    heapq.heapify(ready)
    order = []
    while ready:
        _, index = heapq.heappop(ready)
        order.append(index)
        for user in users[index]:
            waiting[user] -= 1
            if not waiting[user]:
                heapq.heappush(ready, (priority[user], user))
    if len(order) < len(needs):
        raise ModelError("the graph's nodes depend on each other in a circle", "Export the model again.")
    return order
