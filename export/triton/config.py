"""Makes Triton's ``config.pbtxt`` from the inputs and outputs of an ONNX graph.

Field names, types and limits follow Triton's ``model_config.proto``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import onnx
from google.protobuf.text_encoding import CEscape
from onnx import TensorProto

from export.audit import graph_inputs
from sparsegpt_core.errors import InputError

__all__ = ["TritonConfig", "TritonSettings", "TritonTensor", "make_config"]

_DEFAULT_MAX_BATCH_SIZE = 32
_TYPES: dict[int, str] = {
    TensorProto.BOOL: "TYPE_BOOL",
    TensorProto.UINT8: "TYPE_UINT8",
    TensorProto.UINT16: "TYPE_UINT16",
    TensorProto.UINT32: "TYPE_UINT32",
    TensorProto.UINT64: "TYPE_UINT64",
    TensorProto.INT8: "TYPE_INT8",
    TensorProto.INT16: "TYPE_INT16",
    TensorProto.INT32: "TYPE_INT32",
    TensorProto.INT64: "TYPE_INT64",
    TensorProto.FLOAT16: "TYPE_FP16",
    TensorProto.FLOAT: "TYPE_FP32",
    TensorProto.DOUBLE: "TYPE_FP64",
    TensorProto.STRING: "TYPE_STRING",
    TensorProto.BFLOAT16: "TYPE_BF16",
}


@dataclass(frozen=True)
class TritonSettings:
    """How Triton serves a model.

    Raises:
        InputError: A value is out of range.

    Example:
        >>> TritonSettings("resnet18", preferred_batch_sizes=(8, 32), gpus=(0,)).max_queue_delay_us
        100
    """

    name: str
    """The name of the model and of its folder."""
    version: int = 1
    """The version's number, which is also its folder's name."""
    max_batch_size: int | None = None
    """The largest batch; 0 for no batching; None for the plan's largest batch, or 32 for a graph with a batch."""
    preferred_batch_sizes: tuple[int, ...] = ()
    """Batch sizes that Triton runs as soon as it can form them; empty for Triton's choice."""
    max_queue_delay_us: int = 100
    """How long a request may wait for others, in microseconds."""
    instances: int = 1
    """Copies of the model on each GPU."""
    gpus: tuple[int, ...] = ()
    """Indices of the GPUs; empty for all."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", self.name):
            raise InputError(
                f"'{self.name}' cannot be a model's name", "Give `name` letters, digits, and . _ - after the first."
            )
        minima = {"version": 1, "instances": 1, "max_queue_delay_us": 0, "max_batch_size": 0}
        ranges = [(field, getattr(self, field), minimum) for field, minimum in minima.items()]
        ranges += [("preferred_batch_sizes", size, 1) for size in self.preferred_batch_sizes]
        ranges += [("gpus", index, 0) for index in self.gpus]
        for field, value, minimum in ranges:
            if value is not None and not minimum <= value < 2**31:
                raise InputError(f"{field}: {value} is out of range", f"Give a number from {minimum} to {2**31 - 1}.")


@dataclass(frozen=True)
class TritonTensor:
    """An input or output."""

    name: str
    """The tensor's name."""
    data_type: str
    """Triton's name of its type."""
    dims: tuple[int, ...]
    """Its dimensions; -1 for a dynamic one."""
    first_dim: str
    """The graph's name for its first dimension; empty if it has none."""


@dataclass(frozen=True)
class TritonConfig:
    """The content of ``config.pbtxt``."""

    settings: TritonSettings
    """How Triton serves the model."""
    platform: str
    """``onnxruntime_onnx`` or ``tensorrt_plan``."""
    max_batch_size: int
    """The largest batch; 0 for no batching."""
    no_batching_reason: str
    """Why there is no batching; empty if there is."""
    inputs: tuple[TritonTensor, ...]
    """The inputs; with batching, ``dims`` leave the batch out."""
    outputs: tuple[TritonTensor, ...]
    """The outputs; with batching, ``dims`` leave the batch out."""

    def to_text(self) -> str:
        """Return the configuration in protobuf's text format."""
        settings = self.settings
        lines = [
            f"name: {_quoted(settings.name)}",
            f"platform: {_quoted(self.platform)}",
            f"max_batch_size: {self.max_batch_size}",
            *(f"input {{ {_fields(tensor)} }}" for tensor in self.inputs),
            *(f"output {{ {_fields(tensor)} }}" for tensor in self.outputs),
        ]
        if self.max_batch_size:
            sizes = settings.preferred_batch_sizes
            preferred = f"preferred_batch_size: {list(sizes)} " if sizes else ""
            lines.append(
                f"dynamic_batching {{ {preferred}max_queue_delay_microseconds: {settings.max_queue_delay_us} }}"
            )
        kind = "KIND_GPU" if settings.gpus or self.platform == "tensorrt_plan" else "KIND_AUTO"
        gpus = f" gpus: {list(settings.gpus)}" if settings.gpus else ""
        lines.append(f"instance_group {{ count: {settings.instances} kind: {kind}{gpus} }}")
        return "\n".join(lines) + "\n"


def make_config(
    graph: onnx.GraphProto, platform: str, settings: TritonSettings, largest_batch: int | None = None
) -> TritonConfig:
    """Make the configuration of a model.

    Args:
        graph: A graph with the model's inputs and outputs.
        platform: ``onnxruntime_onnx`` or ``tensorrt_plan``.
        settings: How Triton serves the model.
        largest_batch: The model's largest batch; None if only the graph limits it.

    Raises:
        InputError: Triton does not know a tensor's type, a rank is unknown, or the model cannot run the batches.
    """
    inputs = [_tensor(value) for value in graph_inputs(graph)]
    outputs = [_tensor(value) for value in graph.output]
    reason = _no_batching_reason([*inputs, *outputs], settings.max_batch_size)
    size = 0 if reason else settings.max_batch_size or largest_batch or _DEFAULT_MAX_BATCH_SIZE
    _check_batches(size, reason, settings, largest_batch)
    if size:
        inputs, outputs = ([replace(each, dims=each.dims[1:]) for each in tensors] for tensors in (inputs, outputs))
    return TritonConfig(settings, platform, size, reason, tuple(inputs), tuple(outputs))


def _tensor(value: onnx.ValueInfoProto) -> TritonTensor:
    kind = value.type.tensor_type
    if kind.elem_type not in _TYPES:  # 0 for a value that is not a tensor
        raise InputError(f"'{value.name}' is not a tensor of a type that Triton knows", "Change its type in the graph.")
    if not kind.HasField("shape"):
        raise InputError(f"the graph does not give the rank of '{value.name}'", "Run onnx.shape_inference on it.")
    dims = tuple(dim.dim_value if dim.dim_value > 0 else -1 for dim in kind.shape.dim)
    return TritonTensor(value.name, _TYPES[kind.elem_type], dims, kind.shape.dim[0].dim_param if dims else "")


def _no_batching_reason(tensors: list[TritonTensor], wanted: int | None) -> str:
    """Return why Triton cannot batch along the first dimension of every tensor; empty if it can.

    A dynamic first dimension is not always the batch. Unless the user wants batches, the graph must give all of these
    dimensions the same name.
    """
    fixed = next((tensor.name for tensor in tensors if tensor.dims[:1] != (-1,)), None)
    if fixed is not None and wanted:
        raise InputError(
            f"no batches: the first dimension of '{fixed}' is not dynamic",
            "Export with a dynamic batch, or leave `max_batch_size` out.",
        )
    if wanted is not None:
        return "" if wanted else "as requested"
    if fixed is not None:
        return f"the first dimension of '{fixed}' is not dynamic"
    names = sorted({tensor.first_dim for tensor in tensors})
    if len(names) == 1:
        return ""
    found = ", ".join(map(repr, names))
    return f"first dimensions differ in name ({found}); if they are the batch, give its largest size"


def _check_batches(size: int, no_batching_reason: str, settings: TritonSettings, largest: int | None) -> None:
    if largest and size > largest:
        raise InputError(f"the plan takes batches of up to {largest}, not {size}", "Build it with other `shapes`.")
    preferred = max(settings.preferred_batch_sizes, default=0)
    if preferred > size:
        hint = f"There is no batching: {no_batching_reason}." if no_batching_reason else "Raise `max_batch_size`."
        raise InputError(f"a preferred batch of {preferred} exceeds the largest batch, {size}", hint)


def _fields(tensor: TritonTensor) -> str:
    # Triton requires at least one dimension; the empty reshape removes it again for a scalar.
    dims = f"dims: {list(tensor.dims)}" if tensor.dims else "dims: [1] reshape { shape: [] }"
    return f"name: {_quoted(tensor.name)} data_type: {tensor.data_type} {dims}"


def _quoted(text: str) -> str:
    return f'"{CEscape(text, as_utf8=True)}"'
