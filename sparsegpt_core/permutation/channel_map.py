"""Where the values of a traced network have their channels, and which channels share an order."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.fx import Node

__all__ = ["ChannelMap", "Member", "Space", "View", "arguments_of", "has_shape", "name_of", "shape_of"]

_OPEN_BATCH_SIZE = 1_000_003  # stands for the open batch size: a prime that differs from every other size


@dataclass(frozen=True)
class Member:
    """One axis of a parameter or buffer that follows an order of channels."""

    tensor: Tensor
    """The network's own parameter or buffer."""
    axis: int
    """The axis that follows the order."""
    block: int
    """Entries of one channel along the axis."""
    reads: bool
    """Whether this is the input axis of a convolution or linear weight."""


@dataclass(eq=False)
class Space:
    """A node of a union-find forest. All nodes of one tree share an order of channels."""

    size: int
    """Number of channels."""
    frozen: str = ""
    """At the root: why the order must stay. Empty: it may change."""
    parent: Space | None = None
    """The next node on the way to the root; None at the root."""

    def root(self) -> Space:
        """Return the root of the tree."""
        space = self
        while space.parent is not None:
            space = space.parent
        return space

    def merge(self, other: Space) -> None:
        """Make both share one order."""
        mine, theirs = self.root(), other.root()
        if mine is not theirs:
            theirs.parent = mine
            mine.frozen = mine.frozen or theirs.frozen

    def freeze(self, reason: str) -> None:
        """Keep the order. Of several reasons the first is kept."""
        root = self.root()
        root.frozen = root.frozen or reason


@dataclass(frozen=True)
class View:
    """Where a value of the network has a space's channels."""

    space: Space
    """The channels."""
    axis: int
    """The axis of the value along which they are."""
    block: int = 1
    """Entries of one channel along the axis."""


@dataclass
class ChannelMap:
    """Where the values found so far have their channels."""

    constants: dict[Node, Tensor]
    """The model's own parameters and buffers."""
    views: dict[Node, View] = field(default_factory=dict)
    """The channels of each activation."""
    members: dict[tuple[int, int], tuple[Space, Member]] = field(default_factory=dict)
    """The space that an axis of a constant follows, by (id of the tensor, axis)."""
    pinned: dict[int, str] = field(default_factory=dict)
    """Why a constant must not change, by the id of the tensor."""

    def refuse(self, node: Node, reason: str) -> None:
        """Freeze the inputs and the output of a node."""
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
        """Return the node's view if it is along ``axis``; otherwise freeze it, and return a frozen view."""
        view = self.views[node]
        if view.axis == axis:
            return view
        view.space.freeze("a layer works along another axis")
        return View(Space(shape_of(node)[axis], view.space.root().frozen), axis)

    def attach(self, node: Node, axis: int, view: View, *, reads: bool = False) -> None:
        """Make an axis of a constant follow a view's channels."""
        if node not in self.constants:
            view.space.freeze(f"{node.name} is not a parameter or buffer of the network")
            return
        tensor = self.constants[node]
        member = Member(tensor, axis, view.block, reads)
        space, known = self.members.setdefault((id(tensor), axis), (view.space, member))
        space.merge(view.space)
        if known.block != view.block:
            space.freeze(f"{node.name} is used in two ways")


def name_of(node: Node) -> str:
    """Return the name of the node's operation, without namespace and overload."""
    schema = getattr(node.target, "_schema", None)
    return str(schema.name).removeprefix("aten::") if schema else str(getattr(node.target, "__name__", node.target))


def arguments_of(node: Node) -> dict[str, Any]:
    """Return the arguments of an ATen operation by name, defaults included."""
    target: Any = node.target
    arguments = target._schema.arguments
    defaults = {argument.name: argument.default_value for argument in arguments if argument.has_default_value()}
    return {**defaults, **dict(zip((argument.name for argument in arguments), node.args)), **node.kwargs}


def has_shape(node: Node) -> bool:
    """Return whether the node's value is a tensor, or a sequence that starts with one."""
    return isinstance(_value(node), Tensor)


def shape_of(node: Node) -> tuple[int, ...]:
    """Return the shape of the node's value, or of its first value; a large prime stands for the open batch size."""
    return tuple(_size(size) for size in _value(node).shape)


def _value(node: Node) -> Any:
    value = node.meta.get("val")
    return value[0] if isinstance(value, (tuple, list)) and value else value


def _size(size: Any) -> int:
    if isinstance(size, int):
        return size
    expression = size.node.expr
    return int(expression.subs(dict.fromkeys(expression.free_symbols, _OPEN_BATCH_SIZE)))
