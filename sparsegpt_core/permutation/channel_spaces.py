"""Which weights share one order of channels.

Between two layers a tensor's channels may stand in any order, as long as the rows of every weight that writes them
and the columns of every weight that reads them follow. The traced graph of the whole network tells which do:
additions tie two orders into one, most operations pass one on, and where an operation is not known to do so the
order stays as it is, with the reason.
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
    """Channels that stand in one order wherever they occur, and every axis that has to follow it.

    ``frozen`` says why they must stay as they are; it is empty where they may be permuted.
    """

    size: int
    members: tuple[Member, ...]
    frozen: str


def find_spaces(model: nn.Module, sample: Tensor) -> list[ChannelSpace]:
    """Return the network's channel spaces in running order.

    What only training runs, such as an auxiliary head, is not seen and would no longer fit.

    Args:
        model: In eval mode, on the device of ``sample``.
        sample: One or more inputs (N, C, H, W).

    Raises:
        ModelError: torch.export cannot trace the network.
    """
    exported = export_graph(model, sample)
    inputs, constants = inputs_and_constants(exported, model)
    own = {id(tensor) for tensor in (*model.parameters(), *model.buffers())}
    ledger = ChannelMap({node: value for node, value in constants.items() if id(value) in own})
    for node in inputs:
        ledger.refuse(node, "the network's input")
    _walk(ledger, exported.graph)
    return _spaces(ledger)


def _walk(ledger: ChannelMap, graph: Graph) -> None:
    for node in graph.nodes:
        if node.op == "output":
            ledger.refuse(node, "the network's output")
        elif node.op == "call_function" and has_shape(node):
            view = _apply_rule(ledger, node)
            if isinstance(view, View):
                ledger.views[node] = view
            else:
                ledger.refuse(node, view)


def _apply_rule(ledger: ChannelMap, node: Node) -> View | str:
    rule, read = RULES.get(name_of(node)), next((read for read in node.all_input_nodes if read in ledger.views), None)
    if rule is None or read is None:
        return f"{name_of(node)} may depend on the order"
    return rule(ledger, node, read)


def _spaces(ledger: ChannelMap) -> list[ChannelSpace]:
    found: dict[Space, list[Member]] = {}
    for space, member in ledger.members.values():
        if id(member.tensor) in ledger.pinned:
            space.freeze(ledger.pinned[id(member.tensor)])
        found.setdefault(space.root(), []).append(member)
    return [ChannelSpace(space.size, tuple(members), space.frozen) for space, members in found.items()]
