"""Watch the tensors inside an ONNX graph while it runs on real images."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy.typing as npt
import onnx
import onnxruntime

from sparsegpt_core.errors import ModelError, first_line

__all__ = ["observe_activations"]

Array = npt.NDArray[Any]


def observe_activations(model: onnx.ModelProto, names: Iterable[str]) -> Callable[[Array], dict[str, Array]]:
    """Load a graph once, to look at some of its tensors on batch after batch.

    Args:
        model: A model with one input, below 2 GiB.
        names: Tensors to observe; the input is one of them if asked for.

    Returns:
        A function from a batch (N, C, H, W) to the tensors by name.

    Raises:
        ModelError: A tensor does not exist, the model has several inputs, or ONNX Runtime cannot load it. The
            function raises it where ONNX Runtime cannot run the batch.
    """
    watched = list(dict.fromkeys(names))
    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value.name for value in graph.input if value.name not in weights]
    if len(inputs) != 1:
        raise ModelError(f"the graph has {len(inputs)} inputs; one is expected")
    computed = {output for node in graph.node for output in node.output if output}
    unknown = [name for name in watched if name not in computed and name not in inputs]
    if unknown:
        raise ModelError(f"the graph computes no tensor '{unknown[0]}'", "Plan and observe the same graph.")
    outputs = [name for name in watched if name in computed]
    session = _session(_with_outputs(model, outputs)) if outputs else None

    def observe(batch: Array) -> dict[str, Array]:
        try:
            found = session.run(outputs, {inputs[0]: batch}) if session else []
        except Exception as error:  # onnxruntime's own exception classes share no public base
            raise ModelError(f"ONNX Runtime cannot run the graph: {first_line(error)}") from error
        by_name = {inputs[0]: batch, **dict(zip(outputs, found))}
        return {name: by_name[name] for name in watched}

    return observe


def _with_outputs(model: onnx.ModelProto, names: list[str]) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    present = {value.name for value in copy.graph.output}
    # Without types: ONNX Runtime infers them.
    copy.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names if name not in present)
    return copy


def _session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # fatal: errors are raised as well
    try:
        content = model.SerializeToString()
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own classes, and protobuf's beyond 2 GiB, by version
        raise ModelError(f"ONNX Runtime cannot load the graph: {first_line(error)}") from error
