"""Opens every ONNX Runtime session of the project. Needs no torch, since ``deploy`` uses it too."""

from __future__ import annotations

from typing import Any, Optional, Union

import onnxruntime

from sparsegpt_core.errors import ModelError, first_line

__all__ = ["CPU", "open_session"]

CPU = "CPUExecutionProvider"
_FATAL = 4  # ONNX Runtime's log level that leaves errors out: they are raised


def open_session(
    model: Union[str, bytes], name: str, *, threads: Optional[int] = None, provider: str = CPU, optimize: bool = True
) -> Any:
    """Open a model in ONNX Runtime.

    Args:
        model: The path of a file, or a serialised model.
        name: The model's name in messages.
        threads: Threads within an operator; None for ONNX Runtime's choice.
        provider: The execution provider.
        optimize: Whether ONNX Runtime may fuse nodes. Without it, every node computes what the file says.

    Returns:
        An ``onnxruntime.InferenceSession``.

    Raises:
        ModelError: ONNX Runtime cannot load the model.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL
    if threads is not None:
        options.intra_op_num_threads = threads
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return onnxruntime.InferenceSession(model, options, providers=[provider])
    except Exception as error:  # ONNX Runtime's error classes share no public base
        raise ModelError(f"ONNX Runtime cannot load {name}: {first_line(error)}", "Export the model again.") from error
