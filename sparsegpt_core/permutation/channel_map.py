"""Where the values of a traced network have their channels, and which channels stand in one order."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.fx import Node

__all__ = ["ChannelMap", "Member", "Space", "View", "arguments_of", "has_shape", "name_of", "shape_of"]

_BATCH = 1_000_003  # stands for the open batch size: a prime that no other size will be confused with


@dataclass(frozen=True)
class Member:
    """One axis of a parameter or buffer that follows an order; a channel is ``block`` entries long there.

    ``reads`` marks the input axis of a convolution's or linear layer's weight.
    """

    tensor: Tensor
    axis: int
    block: int
    reads: bool


@dataclass(eq=False)
class Space:
    """A node of a forest, each tree of which is the channels that stand in one order; its root knows them.

    ``frozen`` says why the order must stay as it is, and is empty where it may change.
    """

    size: int
    frozen: str = ""
    parent: Space | None = None

    def root(self) -> Space:
        """Return what all that share the order have in common."""
        space = self
        while space.parent is not None:
            space = space.parent
        return space

    def merge(self, other: Space) -> None:
        """From now on both are in one order."""
        mine, theirs = self.root(), other.root()
        if mine is not theirs:
            theirs.parent = mine
            mine.frozen = mine.frozen or theirs.frozen

    def freeze(self, reason: str) -> None:
        """Keep the order; of several reasons the first counts."""
        root = self.root()
        root.frozen = root.frozen or reason


@dataclass(frozen=True)
class View:
    """Where a value has a space's channels: along ``axis``, each ``block`` entries long."""

    space: Space
    axis: int
    block: int = 1


@dataclass
class ChannelMap:
    """What is known so far: the views of activations, and which axes of ``constants`` follow which space.

    ``constants`` are the model's own parameters and buffers; ``pinned`` says by identity which of them must stay
    as they are.
    """

    constants: dict[Node, Tensor]
    views: dict[Node, View] = field(default_factory=dict)
    members: dict[tuple[int, int], tuple[Space, Member]] = field(default_factory=dict)
    pinned: dict[int, str] = field(default_factory=dict)

    def refuse(self, node: Node, reason: str) -> None:
        """Freeze all that the node reads and what it puts out."""
        for read in node.all_input_nodes:
            if read in self.views:
                self.views[read].space.freeze(reason)
            if read in self.constants:
                self.pinned[id(self.constants[read])] = reason
        if has_shape(node):
            shape = shape_of(node)
            axis = min(1, len(shape) - 1)
            self.views[node] = View(Space(shape[axis] if shape else 1, reason), axis)

    def along(self, node: Node, axis: int) -> View:
        """Return the node's view if it is along ``axis``; else freeze what it has, and return a frozen one."""
        view = self.views[node]
        if view.axis == axis:
            return view
        view.space.freeze("a layer works along another axis")
        return View(Space(shape_of(node)[axis], view.space.root().frozen), axis)

    def attach(self, node: Node, axis: int, view: View, *, reads: bool = False) -> None:
        """Let an axis of a constant follow a view's channels."""
        if node not in self.constants:
            view.space.freeze(f"{node.name} is no parameter or buffer of the network")
            return
        tensor = self.constants[node]
        member = Member(tensor, axis, view.block, reads)
        space, known = self.members.setdefault((id(tensor), axis), (view.space, member))
        space.merge(view.space)
        if known.block != view.block:
            space.freeze(f"{node.name} is used in two ways")


def name_of(node: Node) -> str:
    """Return the name of the node's operation, without name space and overload."""
    schema = getattr(node.target, "_schema", None)
    return str(schema.name).removeprefix("aten::") if schema else str(getattr(node.target, "__name__", node.target))


def arguments_of(node: Node) -> dict[str, Any]:
    """Return the arguments of an ATen operation by name, defaults included."""
    target: Any = node.target
    arguments = target._schema.arguments
    defaults = {argument.name: argument.default_value for argument in arguments if argument.has_default_value()}
    return {**defaults, **dict(zip((argument.name for argument in arguments), node.args)), **node.kwargs}


def has_shape(node: Node) -> bool:
    """Tell whether the node's value is a tensor, or several."""
    return isinstance(_value(node), Tensor)


def shape_of(node: Node) -> tuple[int, ...]:
    """Return the shape of the node's value, the first of several; the batch size counts as a large prime."""
    return tuple(_size(size) for size in _value(node).shape)


def _value(node: Node) -> Any:
    value = node.meta.get("val")
    return value[0] if isinstance(value, (tuple, list)) and value else value


def _size(size: Any) -> int:
    if isinstance(size, int):
        return size
    expression = size.node.expr
    return int(expression.subs(dict.fromkeys(expression.free_symbols, _BATCH)))
