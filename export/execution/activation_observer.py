"""Reads the tensors inside an ONNX graph while it runs on real images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Union

import numpy as np
import numpy.typing as npt
import onnx

from export.audit import graph_inputs
from export.execution.cpu_session import CpuSession
from sparsegpt_core.errors import ModelError

__all__ = ["observe_activations", "with_outputs"]

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
    session = CpuSession(with_outputs(model, outputs), "the graph") if outputs else None

    def observe(batch: Arrays) -> dict[str, Array]:
        arrays = [batch] if isinstance(batch, np.ndarray) else batch
        found = session.run(arrays, outputs) if session else []
        by_name = dict(zip((*inputs, *outputs), (*arrays, *found)))
        return {name: by_name[name] for name in observed}

    return observe


def with_outputs(model: onnx.ModelProto, names: Iterable[str]) -> onnx.ModelProto:
    """Return a copy of a model that has more of its tensors as outputs.

    Example:
        >>> from torch import nn
        >>> from export.writing import export_model
        >>> model = export_model(nn.Sequential(nn.ReLU(), nn.Sigmoid()), (1, 4, 4))
        >>> len(with_outputs(model, model.graph.node[0].output).graph.output)
        2
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    present = {value.name for value in copy.graph.output}
    # Outputs without types: ONNX Runtime infers them.
    copy.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names if name not in present)
    return copy
