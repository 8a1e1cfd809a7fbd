"""A network as a list of operations, with the places that use its layers' weights."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import shorten
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, export
from torch.export.graph_signature import InputKind
from torch.fx import Node

from sparsegpt_core.errors import ModelError, first_line
from sparsegpt_core.network.inputs import tensors_of
from sparsegpt_core.network.layers import Layer

__all__ = ["Program", "export_graph", "inputs_and_constants", "trace"]

_MAX_REASON_CHARACTERS = 300  # the tracer may write out formulas that fill pages
_WEIGHTED = {
    torch.ops.aten.conv1d.default,
    torch.ops.aten.conv1d.padding,
    torch.ops.aten.conv2d.default,
    torch.ops.aten.conv2d.padding,
    torch.ops.aten.conv3d.default,
    torch.ops.aten.conv3d.padding,
    torch.ops.aten.linear.default,
}


@dataclass(frozen=True)
class Program:
    """The operations that the layers' inputs depend on."""

    steps: tuple[Node, ...]
    """The operations in running order. No operation works in place."""
    inputs: tuple[Node, ...]
    """The network's inputs."""
    constants: dict[Node, Any]
    """Parameters, buffers and traced constants, by node."""
    sites: dict[str, tuple[Node, ...]]
    """The nodes that multiply by a layer's weight, in running order, by layer."""
    sample_bytes: int
    """Bytes of the largest value for one sample."""


def trace(model: nn.Module, sample: Tensor, layers: Sequence[Layer]) -> Program:
    """Trace the network by torch.export, with an open batch size.

    Args:
        model: In eval mode, on the device of ``sample``.
        sample: A batch of one or more samples (N, C, H, W); :class:`~sparsegpt_core.network.inputs.Inputs` of several
            inputs.
        layers: The layers whose inputs are needed.

    Raises:
        ModelError: torch.export fails, or the traced graph and the network use a layer's weight differently.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from sparsegpt_core.settings import PruneSettings
        >>> from sparsegpt_core.network import plan_layers
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4)).eval()
        >>> sample = torch.ones(2, 4)
        >>> program = trace(model, sample, plan_layers(model, sample, PruneSettings()))
        >>> [str(step.target) for step in program.steps]
        ['aten.linear.default', 'aten.relu.default', 'aten.linear.default']
    """
    return _program(export_graph(model, sample), model, layers)


def export_graph(model: nn.Module, sample: Tensor) -> ExportedProgram:
    """Trace the whole network into a graph of ATen operations, without operations in place, with an open batch size.

    Args:
        model: In eval mode, on the device of ``sample``.
        sample: A batch of one or more samples (N, C, H, W); :class:`~sparsegpt_core.network.inputs.Inputs` of several
            inputs.

    Raises:
        ModelError: torch.export fails.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> exported = export_graph(nn.Linear(4, 2).eval(), torch.ones(2, 4))
        >>> [str(node.target) for node in exported.graph.nodes if node.op == "call_function"]
        ['aten.linear.default']
    """
    # torch.export would take a batch of one for a constant.
    samples = tuple(torch.cat([each, each])[:2] for each in tensors_of(sample))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about PyTorch's own internals
            exported = export(model, samples, dynamic_shapes=({0: Dim("batch", min=1)},) * len(samples), strict=False)
            return exported if _drop_in_place(exported) else exported.run_decompositions({})
    except Exception as error:  # the tracer raises exceptions of a dozen unrelated classes
        raise ModelError(
            f"torch.export cannot trace the network: {shorten(first_line(error), _MAX_REASON_CHARACTERS)}"
        ) from error


def inputs_and_constants(exported: ExportedProgram, model: nn.Module) -> tuple[list[Node], dict[Node, Any]]:
    """Return the graph's inputs, and its parameters, buffers and traced constants.

    Parameters and buffers are the model's own tensors.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> model = nn.Linear(4, 2).eval()
        >>> inputs, constants = inputs_and_constants(export_graph(model, torch.ones(2, 4)), model)
        >>> len(inputs), any(value is model.weight for value in constants.values())
        (1, True)
    """
    tensors: dict[str, Any] = {
        **exported.constants,
        # A shared weight may be traced under either of its names.
        **dict(model.named_buffers(remove_duplicate=False)),
        **dict(model.named_parameters(remove_duplicate=False)),
    }
    nodes = {node.name: node for node in exported.graph.nodes}
    inputs, constants = [], {}
    for spec in exported.graph_signature.input_specs:
        node = nodes[spec.arg.name]
        if spec.kind is InputKind.USER_INPUT:
            inputs.append(node)
        elif spec.target is not None:
            constants[node] = tensors[spec.target]
    for node in nodes.values():
        if node.op == "get_attr":
            constants[node] = getattr(exported.graph_module, str(node.target))
    return inputs, constants


def _drop_in_place(exported: ExportedProgram) -> bool:
    """Replace in-place operations by out-of-place ones; False if one writes into a view or its input is read again."""
    for node in list(exported.graph.nodes):
        if node.op != "call_function" or not _schema(node) or not _schema(node).is_mutable:
            continue
        target = node.args[0]
        packet = getattr(torch.ops.aten, node.target._schema.name.removeprefix("aten::").removesuffix("_"), None)
        plain = getattr(packet, node.target._overloadname, None)
        if plain is None or plain._schema.is_mutable or len(target.users) > 1 or _is_view(target):
            return False
        node.target = plain
    return True


def _schema(node: Node) -> Any:
    return getattr(node.target, "_schema", None)


def _is_view(node: Node) -> bool:
    schema = _schema(node)
    return schema is not None and any(value.alias_info is not None for value in schema.returns)


def _program(exported: ExportedProgram, model: nn.Module, layers: Sequence[Layer]) -> Program:
    inputs, constants = inputs_and_constants(exported, model)
    sites = {}
    for layer in layers:
        node = next((n for n, value in constants.items() if value is layer.prunable.weight), None)
        users = [] if node is None else list(node.users)
        if node is None or len(users) != layer.calls or not all(_multiplies(user, node) for user in users):
            raise ModelError(f"the traced graph does not use the weight of {layer.name} as the network does")
        sites[layer.name] = tuple(users)
    steps = _ancestors(exported, {site for users in sites.values() for site in users}, constants)
    order = {node: index for index, node in enumerate(steps)}
    return Program(
        steps=steps,
        inputs=tuple(inputs),
        constants=constants,
        sites={name: tuple(sorted(users, key=order.__getitem__)) for name, users in sites.items()},
        sample_bytes=max(_sample_bytes(node) for node in steps),
    )


def _multiplies(node: Node, weight: Node) -> bool:
    return node.target in _WEIGHTED and node.args[1] is weight


def _ancestors(exported: ExportedProgram, wanted: set[Node], constants: dict[Node, Any]) -> tuple[Node, ...]:
    """The wanted nodes and the operations that they depend on, in running order."""
    needed = set(wanted)
    for node in reversed(list(exported.graph.nodes)):
        if node in needed:
            needed.update(node.all_input_nodes)
    return tuple(n for n in exported.graph.nodes if n in needed and n.op == "call_function" and n not in constants)


def _sample_bytes(node: Node) -> int:
    value = node.meta.get("val")
    if not isinstance(value, Tensor):
        return 0
    elements = 1
    for size in value.shape[1:]:
        elements *= size if isinstance(size, int) else int(size.node.hint)
    return elements * value.element_size()
