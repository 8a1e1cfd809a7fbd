"""Finds the node at which an ONNX file begins to differ from its PyTorch network.

Errors add up on the way through a network, so the first node whose output differs much need not be the wrong one.
Therefore each node is run by itself on PyTorch's values, which shows its own error alone.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.onnx import ONNXProgram

from export.audit import load_model
from export.execution import CpuSession, observe_activations, tensor_types
from export.importing import OnnxNetwork
from sparsegpt_core.execution import full_precision

__all__ = ["Fault", "find_fault", "torch_values"]

Array = npt.NDArray[Any]

_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass(frozen=True)
class Fault:
    """A node that computes something else than PyTorch does."""

    node: str
    """The node's name."""
    error: float
    """‖difference‖ / ‖expected‖ of its output; infinite where the output is not finite."""
    largest: float
    """The largest magnitude in its output."""
    expected: float
    """The largest magnitude in PyTorch's output."""

    def __str__(self) -> str:
        return (
            f"{self.node}, whose output has a relative error of {self.error:.2g}: "
            f"values up to {self.largest:.3g}, expected up to {self.expected:.3g}"
        )


def find_fault(
    path: Path, values: Mapping[str, Array], inputs: Sequence[Array], outputs: Sequence[Array], tolerance: float
) -> Fault:
    """Return the first node whose own error exceeds the tolerance, else the node with the largest error.

    Args:
        path: The file. Its graph is cut at each tensor with a name in ``values``: the tensor's readers get the right
            value, and its node's output is compared with it.
        values: The right values by name. Names that the graph does not have are ignored.
        inputs: One array for each input of the graph; ``values`` were computed from them.
        outputs: The right value of each output of the graph.
        tolerance: The largest ``error`` that is normal for the file's precision.

    Raises:
        ModelError: ONNX Runtime cannot run the parts of the graph.
    """
    model = load_model(path)
    types = tensor_types(model)
    right = {**values, **{each.name: value for each, value in zip(model.graph.output, outputs, strict=True)}}
    cuts = [name for node in model.graph.node for name in node.output if name in right and name in types]
    parts = CpuSession(_cut(model, cuts, types), path.name, optimize=False)
    given = {*cuts, *(each.name for each in model.graph.input)}
    faults = [
        _judge(_responsible(model.graph, name, given), actual, right[name])
        for name, actual in zip(cuts, parts.run([*inputs, *(right[name] for name in cuts)]), strict=True)
    ]
    beyond = (fault for fault in faults if fault.error > tolerance)
    return next(beyond, max(faults, key=lambda fault: fault.error))


def torch_values(network: nn.Module, inputs: Sequence[Tensor]) -> dict[str, Array]:
    """Return every tensor that the network computes from these inputs, by the names that ONNX files of it use.

    torch.onnx names tensors after the nodes of the program that it translates. That program is traced again and run
    node by node. With a folded batch norm, the convolution's output has the batch norm's name.

    Args:
        network: The network, in eval mode.
        inputs: The inputs, on the network's device, with two samples or more: torch.export treats a size of 1 as a
            constant.
    """
    if isinstance(network, OnnxNetwork):
        model = network.to_onnx()
        names = tensor_types(model).keys() - {each.name for each in model.graph.input}
        return observe_activations(model, names)([each.cpu().numpy() for each in inputs])
    batch = torch.export.Dim("batch")
    shapes = tuple({0: batch} if len(each) == len(inputs[0]) else {} for each in inputs)
    sink = io.StringIO()
    with contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network, tuple(inputs), dynamo=True, dynamic_shapes=shapes, optimize=False, verbose=False
        )
    recorder = _Recorder(cast(ExportedProgram, cast(ONNXProgram, program).exported_program).module())
    with torch.inference_mode(), full_precision(tf32=False):
        recorder.run(*inputs)
    return recorder.values


class _Recorder(torch.fx.Interpreter):
    """Keeps every tensor that the program computes."""

    def __init__(self, module: torch.fx.GraphModule) -> None:
        super().__init__(module)
        self.values: dict[str, Array] = {}

    def run_node(self, n: torch.fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, Tensor):
            self.values[n.name] = value.float().cpu().numpy() if value.is_floating_point() else value.cpu().numpy()
        return value


def _cut(model: onnx.ModelProto, names: Iterable[str], types: Mapping[str, int]) -> onnx.ModelProto:
    """Return a copy that takes the named tensors as inputs and returns what their nodes compute, by other names."""
    cut = onnx.ModelProto()
    cut.CopyFrom(model)
    own = {name: f"{name} (own)" for name in names}
    for node in cut.graph.node:
        node.output[:] = [own.get(name, name) for name in node.output]
    del cut.graph.value_info[:]
    del cut.graph.output[:]
    for name, other in own.items():
        cut.graph.input.append(onnx.helper.make_tensor_value_info(name, types[name], None))
        cut.graph.output.append(onnx.helper.make_tensor_value_info(other, types[name], None))
    return cut


def _responsible(graph: onnx.GraphProto, name: str, given: Set[str]) -> str:
    """Return the name of a layer between the given tensors and ``name``, else of the last node that is not a cast."""
    producers = {output: node for node in graph.node for output in node.output}
    last = producers[name]
    waiting, seen = [name], set(given) - {name}
    while waiting:
        node = producers.get(waiting.pop())
        if node is None:
            continue
        if node.op_type in _LAYERS:
            return str(node.name)
        if last.op_type in ("Cast", "QuantizeLinear", "DequantizeLinear"):
            last = node
        waiting += [each for each in node.input if each not in seen]
        seen.update(node.input)
    return str(last.name)


def _judge(node: str, actual: Array, expected: Array) -> Fault:
    actual, expected = actual.astype(np.float64), expected.astype(np.float64)
    largest, right = float(np.abs(actual).max(initial=0)), float(np.abs(expected).max(initial=0))
    if actual.shape != expected.shape or not np.isfinite(actual).all():
        return Fault(node, float("inf"), largest, right)
    scale = float(np.linalg.norm(expected)) or 1.0
    return Fault(node, float(np.linalg.norm(actual - expected)) / scale, largest, right)
