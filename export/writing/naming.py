"""Names the inputs and outputs of a graph as in Python, and its nodes after their modules."""

from __future__ import annotations

from ast import literal_eval
from collections import Counter
from collections.abc import Sequence
from typing import cast

import onnx
from onnxscript import ir
from torch.export import ExportedProgram
from torch.onnx import ONNXProgram
from torch.utils._pytree import tree_unflatten

from sparsegpt_core.network import name_outputs

__all__ = ["INPUT", "name_nodes", "name_values"]

INPUT = "input"
_SCOPES = "pkg.torch.onnx.name_scopes"


def name_values(program: ONNXProgram) -> None:
    """Name the inputs and outputs of a traced program.

    A single input is ``input``; several inputs have the names of ``forward``'s arguments. Outputs have the names of
    :func:`~sparsegpt_core.network.name_outputs`.
    """
    graph = program.model.graph
    exported = cast(ExportedProgram, program.exported_program)  # None only in a program that was read from a file
    names = [*_input_names(exported), *_output_names(exported, graph.outputs)]
    for value, name in zip((*graph.inputs, *graph.outputs), names):
        value.name = name
    ir.passes.common.NameFixPass()(program.model)  # renames other values that have one of these names


def name_nodes(graph: onnx.GraphProto) -> None:
    """Name nodes after their modules and drop the tracer's metadata, which contains paths of this machine."""
    used: Counter[str] = Counter()
    for index, node in enumerate(graph.node):
        scopes = next((entry.value for entry in node.metadata_props if entry.key == _SCOPES), "[]")
        del node.metadata_props[:]
        node.doc_string = ""
        node.name = f"{node.op_type}_{index}"
        if node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
            # A convolution with a folded batch norm has the batch norm's scope, but its weight has its own name.
            weight, _, suffix = node.input[1].rpartition(".")
            module = weight if suffix == "weight" else next((s for s in reversed(literal_eval(scopes)[:-1]) if s), "")
            if module:
                used[module] += 1
                node.name = module if used[module] == 1 else f"{module}#{used[module]}"
    del graph.metadata_props[:]
    for value in (*graph.value_info, *graph.input, *graph.output):
        del value.metadata_props[:]
    for tensor in graph.initializer:
        del tensor.metadata_props[:]


def _input_names(exported: ExportedProgram) -> list[str]:
    arguments = exported.graph_signature.user_inputs
    return [INPUT] if len(arguments) == 1 else [str(name) for name in arguments]


def _output_names(exported: ExportedProgram, outputs: Sequence[ir.Value]) -> list[str]:
    values = tree_unflatten(exported.graph_signature.user_outputs, exported.call_spec.out_spec)
    return [name for name, _ in name_outputs(values, outputs[0].shape is not None and len(outputs[0].shape) == 2)]
