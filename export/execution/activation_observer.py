"""Reads the tensors inside an ONNX graph while it runs on real images."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Union

import numpy as np
import numpy.typing as npt
import onnx

from export.audit import graph_inputs
from export.execution.cpu_session import CpuSession
from sparsegpt_core.errors import ModelError

__all__ = ["more_outputs", "observe_activations", "probed"]

Array = npt.NDArray[Any]
Arrays = Union[Array, Sequence[Array]]
"""A batch (N, ...), or one for each of several inputs, in the graph's order."""


def observe_activations(model: onnx.ModelProto, names: Iterable[str]) -> Callable[[Arrays], dict[str, Array]]:
    """Load a graph once, to read some of its tensors on batch after batch.

    Args:
        model: The model.
        names: The tensors to read. Inputs may be among them.

    Returns:
        A function from a batch to the tensors by name. It raises ModelError where ONNX Runtime cannot run the batch.

    Raises:
        ModelError: A tensor does not exist, or ONNX Runtime cannot load the model.

    Example:
        >>> import numpy as np
        >>> from torch import nn
        >>> from export.writing import export_model
        >>> model = export_model(nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU()).eval(), (1, 4, 4))
        >>> convolution = model.graph.node[0]
        >>> observe = observe_activations(model, convolution.output)
        >>> observe(np.zeros((3, 1, 4, 4), np.float32))[convolution.output[0]].shape
        (3, 2, 4, 4)
    """
    observed = list(dict.fromkeys(names))
    inputs = [value.name for value in graph_inputs(model.graph)]
    computed = {output for node in model.graph.node for output in node.output if output}
    unknown = [name for name in observed if name not in computed and name not in inputs]
    if unknown:
        raise ModelError(f"the graph computes no tensor '{unknown[0]}'", "Plan and observe the same graph.")
    outputs = [name for name in observed if name in computed]
    with more_outputs(model, outputs):
        session = CpuSession(model, "the graph") if outputs else None

    def observe(batch: Arrays) -> dict[str, Array]:
        arrays = [batch] if isinstance(batch, np.ndarray) else batch
        found = session.run(arrays, outputs) if session else []
        by_name = dict(zip((*inputs, *outputs), (*arrays, *found)))
        return {name: by_name[name] for name in observed}

    return observe


def more_outputs(model: onnx.ModelProto, names: Iterable[str]) -> contextlib.AbstractContextManager[None]:
    """Let a model return more of its tensors within a ``with`` block.

    Example:
        >>> from torch import nn
        >>> from export.writing import export_model
        >>> model = export_model(nn.Sequential(nn.ReLU(), nn.Sigmoid()), (1, 4, 4))
        >>> with more_outputs(model, model.graph.node[0].output):
        ...     len(model.graph.output)
        2
        >>> len(model.graph.output)
        1
    """
    outputs = [*model.graph.output]
    present = {value.name for value in outputs}
    # Outputs without types: ONNX Runtime infers them.
    outputs += [onnx.helper.make_empty_tensor_value_info(name) for name in names if name not in present]
    return probed(model.graph, onnx.GraphProto(output=outputs))


@contextlib.contextmanager
def probed(graph: onnx.GraphProto, probes: onnx.GraphProto) -> Iterator[None]:
    """Let a graph return what ``probes`` compute, for a while: there may be no memory for a copy of its weights.

    Args:
        graph: The graph.
        probes: The nodes that are added, and the outputs that take the place of the graph's.

    Example:
        >>> import onnx.parser
        >>> graph = onnx.parser.parse_graph("g (float[N] x) => (float[N] y) { y = Relu(x) }")
        >>> with probed(graph, onnx.parser.parse_graph("p (float[N] y) => (float[N] z) { z = Abs(y) }")):
        ...     [node.op_type for node in graph.node], graph.output[0].name
        (['Relu', 'Abs'], 'z')
        >>> [node.op_type for node in graph.node], graph.output[0].name
        (['Relu'], 'y')
    """
    count, outputs = len(graph.node), onnx.GraphProto(output=graph.output).output
    graph.node.extend(probes.node)
    _replace(graph.output, probes.output)
    try:
        yield
    finally:
        del graph.node[count:]
        _replace(graph.output, outputs)


def _replace(field: Any, items: Iterable[onnx.ValueInfoProto]) -> None:
    del field[:]
    field.extend(items)
