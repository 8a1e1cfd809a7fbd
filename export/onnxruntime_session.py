"""Opens every ONNX Runtime session of the project. Needs no torch, since ``deploy`` uses it too."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Optional, Union

import onnx
import onnxruntime

from sparsegpt_core.errors import InputError, ModelError, first_line

__all__ = ["CPU", "load_operators", "open_session", "runtime_message", "uses_fp16"]

CPU = "CPUExecutionProvider"
_GPU_HINT = (
    "Check the GPU with nvidia-smi. Install the CUDA, cuDNN and TensorRT that this onnxruntime-gpu needs, "
    "and put their libraries on LD_LIBRARY_PATH."
)
_CRASHES_ON_FP16 = "NchwcTransformer"  # ends the process on LayerNormalization before attention (decision 0030)
_LIBRARIES: list[str] = []  # of custom operators, in this process
_FATAL = 4  # ONNX Runtime's log level that leaves errors out: they are raised
# Its status, and the place in its source: a path, a line and the signature of a function.
_SOURCE = re.compile(
    r"\[ONNXRuntimeError\] : \d+ : \w+ : |"
    r"/onnxruntime_src/\S+:\d+ [^()]*\((?:[^()]|\([^()]*\))*\)\S* (?:\[with [^\]]*\] )?"
)
_LATER_OPSET = re.compile(r"Opset (\d+) is under development.* support for domain (\S+) is till opset (\d+)", re.DOTALL)


def open_session(
    model: Union[str, bytes],
    name: str,
    *,
    half: Optional[bool] = None,
    threads: Optional[int] = None,
    provider: str = CPU,
    provider_options: Optional[Mapping[str, str]] = None,
    sizes: Optional[Mapping[str, int]] = None,
    optimize: bool = True,
    pack: bool = True,
) -> Any:
    """Open a model in ONNX Runtime.

    ONNX Runtime itself would print to standard output and use the CPU where a provider fails. Here that is an error.
    One of its optimizers would end the process on some FP16 graphs. It is off for all of them. On the CPU, Q/DQ nodes
    are computed as they are written: ONNX Runtime 1.32 would fuse them into integer kernels, and its QGemm is wrong on
    CPUs with AVX2 alone.

    Args:
        model: The path of a file, or a serialised model.
        name: The model's name in messages.
        half: What :func:`uses_fp16` returns for the model; None to read the model for it.
        threads: Threads within an operator; None for ONNX Runtime's choice.
        provider: The execution provider. It leaves the nodes that it cannot run to the CPU.
        provider_options: The provider's options, by name.
        sizes: Sizes of dynamic dimensions, by the graph's names for them.
        optimize: Whether ONNX Runtime may fuse nodes. Without it, every node computes what the file says.
        pack: Whether ONNX Runtime may copy weights into the layout that its kernels like best. Without it, external
            data stays in its file, mapped into memory.

    Returns:
        An ``onnxruntime.InferenceSession``.

    Raises:
        InputError: The provider does not start, or cannot run the model.
        ModelError: ONNX Runtime cannot load the model on the CPU.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    for dimension, size in (sizes or {}).items():
        options.add_free_dimension_override_by_name(dimension, size)
    if threads is not None:
        options.intra_op_num_threads = threads
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if not pack:
        options.add_session_config_entry("session.disable_prepacking", "1")
    if provider == CPU:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    else:
        onnxruntime.set_default_logger_severity(_FATAL)  # a library that cannot be loaded is logged there
    for library in _LIBRARIES:
        options.register_custom_ops_library(library)
    try:
        session = onnxruntime.InferenceSession(
            model,
            options,
            providers=[(provider, dict(provider_options or {}))],
            enable_fallback=0,
            disabled_optimizers=[_CRASHES_ON_FP16] if _reads_as_fp16(model, half) else None,
        )
    except Exception as error:  # ONNX Runtime's error classes share no public base
        if provider == CPU:
            if later := _LATER_OPSET.search(str(error)):
                opset, domain, newest = later.groups()
                raise ModelError(
                    f"ONNX Runtime cannot load {name}: it has opset {opset} of {domain}",
                    f"Export it with an opset up to {newest}, or install a newer ONNX Runtime.",
                ) from error
            unknown = "is not a registered function/op" in str(error)
            hint = "Give `ort_custom_ops`, the operator's library." if unknown else "Export the model again."
            raise ModelError(f"ONNX Runtime cannot load {name}: {runtime_message(error)}", hint) from error
        raise InputError(f"{provider} cannot run {name}: {runtime_message(error)}", _GPU_HINT) from error
    if provider not in session.get_providers():
        raise InputError(f"{provider} does not start, so ONNX Runtime would run {name} on the CPU", _GPU_HINT)
    return session


def runtime_message(error: BaseException) -> str:
    """Return the first line of an error of ONNX Runtime, without places in its source.

    Example:
        >>> runtime_message(ValueError("[ONNXRuntimeError] : 1 : FAIL : /onnxruntime_src/a.cc:7 void f(int) bad shape"))
        'bad shape'
    """
    return _SOURCE.sub("", first_line(error))


def load_operators(library: str) -> None:
    """Load a library of custom operators, which runs its code. Every session that is opened after that has them.

    A graph with such operators is opened many times: in pieces, as each file that is made of it, and to observe it.

    Args:
        library: The library's path.

    Raises:
        InputError: ONNX Runtime cannot load the library.
    """
    try:
        onnxruntime.SessionOptions().register_custom_ops_library(library)
    except Exception as error:  # ONNX Runtime's error classes share no public base
        raise InputError(
            f"ONNX Runtime cannot load the library {library}: {runtime_message(error)}",
            "Give `ort_custom_ops` a library of operators for this version of ONNX Runtime.",
        ) from error
    if library not in _LIBRARIES:
        _LIBRARIES.append(library)


def uses_fp16(proto: onnx.ModelProto) -> bool:
    """Return whether a value of a graph is FP16.

    Example:
        >>> import onnx.parser
        >>> graph = "<ir_version: 8, opset_import: ['': 17]> g (float16[N] x) => (float16[N] y) { y = Relu(x) }"
        >>> uses_fp16(onnx.parser.parse_model(graph.replace("'", '"')))
        True
    """
    inputs = (value.type.tensor_type.elem_type for value in proto.graph.input)
    return onnx.TensorProto.FLOAT16 in {*inputs, *_types(proto.graph.node, proto.graph.initializer)}


def _reads_as_fp16(model: Union[str, bytes], half: Optional[bool]) -> bool:
    """Return whether a value of the graph is FP16. False for what is not ONNX: ONNX Runtime says why."""
    if half is not None:
        return half
    try:
        if isinstance(model, bytes):
            return uses_fp16(onnx.load_model_from_string(model))
        return uses_fp16(onnx.load(model, format="protobuf", load_external_data=False))
    except Exception:  # the session reports the same fault in its own words
        return False


def _types(nodes: Iterable[onnx.NodeProto], tensors: Iterable[onnx.TensorProto]) -> Iterable[int]:
    """Yield the element types of initializers, of constants and of casts, also in the bodies of If and Loop."""
    yield from (tensor.data_type for tensor in tensors)
    for node in nodes:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                yield attribute.t.data_type
            elif attribute.type == onnx.AttributeProto.GRAPH:
                yield from _types(attribute.g.node, attribute.g.initializer)
            elif node.op_type == "Cast" and attribute.name == "to":
                yield attribute.i
