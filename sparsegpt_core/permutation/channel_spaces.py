"""Which weights share one order of channels.

Between two layers a tensor's channels may have any order, if the rows of every weight that writes them and the columns
of every weight that reads them follow. The traced graph of the whole network shows these weights. Additions merge two
orders into one, and most operations pass an order on. An unknown operation freezes the order, with a reason.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.fx import Graph, Node

from sparsegpt_core.network import export_graph, inputs_and_constants
from sparsegpt_core.permutation.channel_map import ChannelMap, Member, Space, View, has_shape, name_of
from sparsegpt_core.permutation.operator_rules import RULES

__all__ = ["ChannelSpace", "find_spaces"]


@dataclass(frozen=True)
class ChannelSpace:
    """Channels that have the same order everywhere in the network."""

    size: int
    """Number of channels."""
    members: tuple[Member, ...]
    """Every axis of a parameter or buffer that follows the order."""
    frozen: str
    """Why the order must stay. Empty: the channels may be permuted."""


def find_spaces(model: nn.Module, sample: Tensor) -> list[ChannelSpace]:
    """Return the network's channel spaces in running order.

    Layers that run only in training, such as an auxiliary head, are not seen. They no longer fit after a permutation.

    Args:
        model: In eval mode, on the device of ``sample``.
        sample: One or more inputs (N, C, H, W).

    Raises:
        ModelError: torch.export cannot trace the network.
    """
    exported = export_graph(model, sample)
    inputs, constants = inputs_and_constants(exported, model)
    own = {id(tensor) for tensor in (*model.parameters(), *model.buffers())}
    channel_map = ChannelMap({node: value for node, value in constants.items() if id(value) in own})
    for node in inputs:
        channel_map.refuse(node, "the network's input")
    _walk(channel_map, exported.graph)
    return _spaces(channel_map)


def _walk(channel_map: ChannelMap, graph: Graph) -> None:
    for node in graph.nodes:
        if node.op == "output":
            channel_map.refuse(node, "the network's output")
        elif node.op == "call_function" and has_shape(node):
            view = _apply_rule(channel_map, node)
            if isinstance(view, View):
                channel_map.views[node] = view
            else:
                channel_map.refuse(node, view)


def _apply_rule(channel_map: ChannelMap, node: Node) -> View | str:
    rule, read = (
        RULES.get(name_of(node)),
        next((read for read in node.all_input_nodes if read in channel_map.views), None),
    )
    if rule is None or read is None:
        return f"{name_of(node)} may depend on the order"
    return rule(channel_map, node, read)


def _spaces(channel_map: ChannelMap) -> list[ChannelSpace]:
    found: dict[Space, list[Member]] = {}
    for space, member in channel_map.members.values():
        if id(member.tensor) in channel_map.pinned:
            space.freeze(channel_map.pinned[id(member.tensor)])
        found.setdefault(space.root(), []).append(member)
    return [ChannelSpace(space.size, tuple(members), space.frozen) for space, members in found.items()]
