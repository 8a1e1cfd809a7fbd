"""Names the inputs and outputs of a graph as in Python, and its nodes after their modules."""

from __future__ import annotations

from ast import literal_eval
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import cast

import onnx
from onnxscript import ir
from torch import nn
from torch.export import ExportedProgram
from torch.onnx import ONNXProgram
from torch.utils._pytree import tree_unflatten

from sparsegpt_core.network import layer_name, name_outputs

__all__ = ["INPUT", "mark_layers", "name_nodes", "name_values", "value_names"]

INPUT = "input"
_SCOPES = "pkg.torch.onnx.name_scopes"
_LAYER = "layer"  # in a node's metadata: the layer whose weight it multiplies by
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def value_names(program: ONNXProgram) -> list[str]:
    """Return the names of the inputs and outputs of a traced program.

    A single input is ``input``; several inputs have the names of ``forward``'s arguments. Outputs have the names of
    :func:`~sparsegpt_core.network.name_outputs`.
    """
    exported = cast(ExportedProgram, program.exported_program)  # None only in a program that was read from a file
    return [*_input_names(exported), *_output_names(exported, program.model.graph.outputs)]


def name_values(model: ir.Model, names: Sequence[str]) -> None:
    """Give the inputs and outputs of a graph the names of :func:`value_names`."""
    for value, name in zip((*model.graph.inputs, *model.graph.outputs), names):
        value.name = name
    ir.passes.common.NameFixPass()(model)  # renames other values that have one of these names


def mark_layers(program: ONNXProgram, network: nn.Module) -> dict[str, str]:
    """Record in each node with a weight the layer that it belongs to: the module, or else the parameter.

    The optimiser renames transposed weights and merges equal ones, so this comes before it.

    Returns:
        The layer of each weight, by the weight's names in the network.
    """
    weights = {
        name: value
        for name, value in network.state_dict(keep_vars=True).items()
        if isinstance(value, nn.Parameter) or name.endswith("weight")
    }
    first = {id(value): name for name, value in reversed(weights.items())}  # of the names of a shared weight
    layers = {name: layer_name(first[id(value)]) for name, value in weights.items()}
    for node in program.model.graph:
        if node.op_type not in _WEIGHTED:
            continue
        value = node.inputs[1]
        while value and (producer := value.producer()) and producer.op_type in ("Transpose", "Identity"):
            value = producer.inputs[0]
        if value and value.name in layers:
            module = _module(node.metadata_props.get(_SCOPES, "[]"))
            is_own = weights.get(f"{module}.weight") is weights[value.name]
            node.metadata_props[_LAYER] = module if is_own else layers[value.name]
    return layers


def name_nodes(graph: onnx.GraphProto, layers: Mapping[str, str]) -> None:
    """Name nodes after their layers, and others with weights after their modules.

    The tracer's metadata is dropped. It contains paths of this machine.

    Args:
        graph: The graph, with the records of :func:`mark_layers`.
        layers: The layer of each weight, for nodes that the optimiser made.
    """
    used: Counter[str] = Counter()
    for index, node in enumerate(graph.node):
        recorded = {entry.key: entry.value for entry in node.metadata_props}
        del node.metadata_props[:]
        node.doc_string = ""
        node.name = f"{node.op_type}_{index}"
        if node.op_type in _WEIGHTED:
            # A convolution with a folded batch norm has the batch norm's scope, but its weight has its own name.
            module = recorded.get(_LAYER) or layers.get(node.input[1]) or _module(recorded.get(_SCOPES, "[]"))
            if module:
                used[module] += 1
                node.name = module if used[module] == 1 else f"{module}#{used[module]}"
    del graph.metadata_props[:]
    for value in (*graph.value_info, *graph.input, *graph.output):
        del value.metadata_props[:]
    for tensor in graph.initializer:
        del tensor.metadata_props[:]


def _module(scopes: str) -> str:
    """The innermost module of a node."""
    return next((scope for scope in reversed(literal_eval(scopes)[:-1]) if scope), "")


def _input_names(exported: ExportedProgram) -> list[str]:
    arguments = exported.graph_signature.user_inputs
    return [INPUT] if len(arguments) == 1 else [str(name) for name in arguments]


def _output_names(exported: ExportedProgram, outputs: Sequence[ir.Value]) -> list[str]:
    values = tree_unflatten(exported.graph_signature.user_outputs, exported.call_spec.out_spec)
    return [name for name, _ in name_outputs(values, outputs[0].shape is not None and len(outputs[0].shape) == 2)]
