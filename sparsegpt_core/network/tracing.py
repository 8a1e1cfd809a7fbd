"""A network as a list of operations, with the places that use its layers' weights."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from textwrap import shorten
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, export
from torch.export.graph_signature import InputKind
from torch.fx import Graph, Interpreter, Node
from torch.nn.modules.module import _IncompatibleKeys
from torch.utils._pytree import tree_map

from sparsegpt_core.errors import ModelError, first_line
from sparsegpt_core.network.inputs import tensors_of
from sparsegpt_core.network.layers import Layer
from sparsegpt_core.patterns import Pattern

__all__ = ["WEIGHTED", "GraphNetwork", "Program", "export_graph", "inputs_and_constants", "trace"]

_MAX_REASON_CHARACTERS = 300  # the tracer may write out formulas that fill pages
WEIGHTED = {
    torch.ops.aten.conv1d.default,
    torch.ops.aten.conv1d.padding,
    torch.ops.aten.conv2d.default,
    torch.ops.aten.conv2d.padding,
    torch.ops.aten.conv3d.default,
    torch.ops.aten.conv3d.padding,
    torch.ops.aten.linear.default,
}
"""The operations that multiply their first argument by a weight, their second."""


class GraphNetwork(nn.Module):
    """A network that is a graph of operations from the start, such as one read from an ONNX file.

    Args:
        graph: Inputs, nodes of kind ``get_attr`` for parameters and buffers of this module, calls of functions of
            tensors that write nothing in place, and one output. Convolutions and linear layers to prune are ATen's.
        batch_size: The only batch size that the graph takes; None if it takes any.
        digest: A digest of what the graph computes, apart from its parameters and buffers.

    Example:
        >>> graph = Graph()
        >>> _ = graph.output(graph.call_function(torch.ops.aten.relu.default, (graph.placeholder("x"),)))
        >>> GraphNetwork(graph)(torch.tensor([[-1.0, 2.0]]))
        tensor([[0., 2.]])
    """

    def __init__(self, graph: Graph, batch_size: int | None = None, digest: str = "") -> None:
        super().__init__()
        self.graph, self.batch_size, self.digest = graph, batch_size, digest

    @property
    def input_names(self) -> list[str]:
        """The names of the inputs, in order."""
        return [str(node.target) for node in self.graph.nodes if node.op == "placeholder"]

    def add_layer(self, name: str, layer: nn.Module) -> None:
        """Add a layer under any name, also one that no attribute of a module could have.

        Raises:
            ModelError: There is a layer of this name.
        """
        if name in self._modules:
            raise ModelError(f"two layers have the name {name}", "Export the model again, with a name for each node.")
        self._modules[name] = layer

    def get_submodule(self, target: str) -> nn.Module:
        """Return the layer of a name."""
        layer = self._modules.get(target)
        return super().get_submodule(target) if layer is None else layer

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load parameters and buffers, whose names PyTorch's own method would split at dots.

        Raises:
            RuntimeError: A name or a shape differs.
        """
        own = self.state_dict(keep_vars=True)
        missing, unexpected = [*(own.keys() - state_dict.keys())], [*(state_dict.keys() - own.keys())]
        if strict and (missing or unexpected):
            raise RuntimeError(
                f"missing: {', '.join(missing) or 'none'}; unexpected: {', '.join(unexpected) or 'none'}"
            )
        with torch.no_grad():
            for name in own.keys() & state_dict.keys():
                own[name].copy_(state_dict[name])
        return _IncompatibleKeys(missing, unexpected)

    def forward(self, *inputs: Tensor) -> Any:
        """Run the graph on inputs (N, ...), batch by batch if it takes one size only."""
        size = self.batch_size
        if size is None or size == len(inputs[0]):
            return _Run(self).run(*inputs)
        parts = zip(*(torch.split(x, size) for x in inputs), strict=True)
        return tree_map(_join, *(_Run(self).run(*part) for part in parts))

    def select_layers(
        self, sample: Tensor, pattern: Pattern, include: Sequence[str] = (), exclude: Sequence[str] = ()
    ) -> list[Layer]:
        """List the layers as :func:`~sparsegpt_core.network.plan_layers` needs them.

        Args:
            sample: A small batch of inputs (N, ...).
            pattern: The pattern. N:M needs C to be a multiple of M.
            include: Globs of layer names.
            exclude: Globs of layer names.
        """
        raise NotImplementedError

    def record_values(self, sample: Tensor) -> None:
        """Run the graph on a sample and record the shape and type of every value in its node's ``meta["val"]``.

        Args:
            sample: A small batch of inputs (N, ...).
        """
        _Recorder(self).run(*tensors_of(sample[: self.batch_size]))


def _join(*parts: Tensor) -> Tensor:
    return torch.cat([torch.atleast_1d(part) for part in parts])  # type: ignore[no-untyped-call]


class _Run(Interpreter):
    def __init__(self, network: GraphNetwork) -> None:
        super().__init__(network, graph=network.graph)
        self.extra_traceback = False  # it would write the graph's node into messages of errors

    def fetch_attr(self, target: str) -> Any:
        """Return a parameter or buffer of a layer, whose name may contain any character."""
        layer, _, name = target.rpartition(".")
        return getattr(self.module.get_submodule(layer), name)


class _Recorder(_Run):
    def run_node(self, n: Node) -> Any:
        """Run a node and record its value without its data."""
        value = super().run_node(n)
        n.meta["val"] = torch.empty_like(value, device="meta") if isinstance(value, Tensor) else None
        return value


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
    """The nodes that multiply by a layer's weight, in running order, by layer. Dense layers may be missing."""
    sample_bytes: int
    """Bytes of the largest value for one sample."""
    batch_size: int | None = None
    """The only batch size that the operations take; None if they take any."""


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
    if isinstance(model, GraphNetwork):
        model.record_values(sample)
        tensors = dict[str, Any](chain(model.named_parameters(), model.named_buffers()))
        constants = {node: tensors[str(node.target)] for node in model.graph.nodes if node.op == "get_attr"}
        inputs = [node for node in model.graph.nodes if node.op == "placeholder"]
        return _program(model.graph, inputs, constants, layers, model.batch_size)
    exported = export_graph(model, sample)
    return _program(exported.graph, *inputs_and_constants(exported, model), layers)


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
    if isinstance(model, GraphNetwork):
        raise ModelError("its operations are those of an ONNX file, not PyTorch's")
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


def _program(
    graph: Graph,
    inputs: Sequence[Node],
    constants: dict[Node, Any],
    layers: Sequence[Layer],
    batch_size: int | None = None,
) -> Program:
    sites = {}
    for layer in layers:
        node = next((n for n, value in constants.items() if value is layer.prunable.weight), None)
        users = [] if node is None else list(node.users)
        if node is None or len(users) != layer.calls or not all(_multiplies(user, node) for user in users):
            if layer.reason is not None:  # it stays as it is
                continue
            raise ModelError(f"the traced graph does not use the weight of {layer.name} as the network does")
        sites[layer.name] = tuple(users)
    steps = _ancestors(graph, {site for users in sites.values() for site in users}, constants)
    order = {node: index for index, node in enumerate(steps)}
    return Program(
        steps=steps,
        inputs=tuple(inputs),
        constants=constants,
        sites={name: tuple(sorted(users, key=order.__getitem__)) for name, users in sites.items()},
        sample_bytes=max(_sample_bytes(node) for node in steps),
        batch_size=batch_size,
    )


def _multiplies(node: Node, weight: Node) -> bool:
    return node.target in WEIGHTED and node.args[1] is weight


def _ancestors(graph: Graph, wanted: set[Node], constants: dict[Node, Any]) -> tuple[Node, ...]:
    """The wanted nodes and the operations that they depend on, in running order."""
    needed = set(wanted)
    for node in reversed(list(graph.nodes)):
        if node in needed:
            needed.update(node.all_input_nodes)
    return tuple(n for n in graph.nodes if n in needed and n.op == "call_function" and n not in constants)


def _sample_bytes(node: Node) -> int:
    value = node.meta.get("val")
    if not isinstance(value, Tensor):
        return 0
    elements = 1
    for size in value.shape[1:]:
        elements *= size if isinstance(size, int) else int(size.node.hint)
    return elements * value.element_size()
