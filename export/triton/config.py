"""Triton's ``config.pbtxt``, from the signature of an ONNX graph.

Field names, types and limits are those of Triton's ``model_config.proto``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import onnx
from google.protobuf.text_encoding import CEscape
from onnx import TensorProto

from sparsegpt_core.errors import InputError

__all__ = ["TritonConfig", "TritonSettings", "TritonTensor", "make_config"]

_DEFAULT_MAX_BATCH = 32
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
    """How Triton shall serve a model.

    Args:
        name: The model's name, which is also its folder's.
        version: The version's number, which is also its folder's name.
        max_batch_size: 0 for no batching; None for 32, or what the plan takes, where the graph has a batch.
        preferred_batch_sizes: Batches to run as soon as they can be formed; empty leaves them to Triton.
        max_queue_delay_us: How long a request may wait for others, in microseconds.
        instances: Copies of the model, on each GPU.
        gpus: Indices of the GPUs to use; empty for all there are.

    Raises:
        InputError: A value is out of its range.
    """

    name: str
    version: int = 1
    max_batch_size: int | None = None
    preferred_batch_sizes: tuple[int, ...] = ()
    max_queue_delay_us: int = 100
    instances: int = 1
    gpus: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", self.name):
            raise InputError(
                f"'{self.name}' cannot be a model's name", "Give --name letters, digits, and . _ - after the first."
            )
        least = {"version": 1, "instances": 1, "max_queue_delay_us": 0, "max_batch_size": 0}
        ranges = [(field, getattr(self, field), limit) for field, limit in least.items()]
        ranges += [("preferred_batch_sizes", size, 1) for size in self.preferred_batch_sizes]
        ranges += [("gpus", index, 0) for index in self.gpus]
        for field, value, limit in ranges:
            if value is not None and not limit <= value < 2**31:
                raise InputError(f"{field}: {value} is out of range", f"Give a number from {limit} to {2**31 - 1}.")


@dataclass(frozen=True)
class TritonTensor:
    """An input or output; -1 in ``dims`` is dynamic, and ``first`` is the graph's name for the first of them."""

    name: str
    data_type: str
    dims: tuple[int, ...]
    first: str


@dataclass(frozen=True)
class TritonConfig:
    """What ``config.pbtxt`` says; ``note`` tells why there is no batching, and ``dims`` are without the batch."""

    settings: TritonSettings
    platform: str
    max_batch_size: int
    note: str
    inputs: tuple[TritonTensor, ...]
    outputs: tuple[TritonTensor, ...]

    def to_text(self) -> str:
        """Return it in protobuf's text format."""
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
    """Describe a model to Triton.

    Args:
        graph: Whose inputs and outputs are the model's.
        platform: ``onnxruntime_onnx`` or ``tensorrt_plan``.
        settings: How to serve it.
        largest_batch: What the model takes at most; None where only the graph limits it.

    Raises:
        InputError: Triton has no such type, a rank is unknown, or the batches that are asked for do not fit.
    """
    weights = {weight.name for weight in graph.initializer}
    inputs = [_tensor(value) for value in graph.input if value.name not in weights]
    outputs = [_tensor(value) for value in graph.output]
    note = _unbatched([*inputs, *outputs], settings.max_batch_size)
    size = 0 if note else settings.max_batch_size or largest_batch or _DEFAULT_MAX_BATCH
    _check_batches(size, note, settings, largest_batch)
    if size:
        inputs, outputs = ([replace(each, dims=each.dims[1:]) for each in tensors] for tensors in (inputs, outputs))
    return TritonConfig(settings, platform, size, note, tuple(inputs), tuple(outputs))


def _tensor(value: onnx.ValueInfoProto) -> TritonTensor:
    kind = value.type.tensor_type
    if kind.elem_type not in _TYPES:  # 0 where it is no tensor
        raise InputError(f"'{value.name}' is no tensor of a type that Triton knows", "Change the graph's signature.")
    if not kind.HasField("shape"):
        raise InputError(f"the graph does not give the rank of '{value.name}'", "onnx.shape_inference may find it.")
    dims = tuple(dim.dim_value if dim.dim_value > 0 else -1 for dim in kind.shape.dim)
    return TritonTensor(value.name, _TYPES[kind.elem_type], dims, kind.shape.dim[0].dim_param if dims else "")


def _unbatched(tensors: list[TritonTensor], asked: int | None) -> str:
    """Say why Triton cannot batch; empty where it can, along the first dimension of every tensor.

    A dynamic dimension need not be the batch: the graph must call them all the same, unless the user asks for batches.
    """
    fixed = next((tensor.name for tensor in tensors if tensor.dims[:1] != (-1,)), None)
    if fixed is not None and asked:
        raise InputError(
            f"no batches: the first dimension of '{fixed}' is not dynamic",
            "Export with a dynamic batch, or leave --max-batch-size out.",
        )
    if asked is not None:
        return "" if asked else "as asked"
    if fixed is not None:
        return f"the first dimension of '{fixed}' is not dynamic"
    names = sorted({tensor.first for tensor in tensors})
    if len(names) == 1:
        return ""
    return f"first dimensions differ in name ({', '.join(map(repr, names))}); if they are the batch, --max-batch-size"


def _check_batches(size: int, note: str, settings: TritonSettings, largest: int | None) -> None:
    if largest and size > largest:
        raise InputError(f"the plan takes batches of up to {largest}, not {size}", "Build it with other --shapes.")
    most = max(settings.preferred_batch_sizes, default=0)
    if most > size:
        hint = f"There is no batching: {note}." if note else "Raise --max-batch-size."
        raise InputError(f"a preferred batch of {most} is more than the largest, {size}", hint)


def _fields(tensor: TritonTensor) -> str:
    # Triton wants at least one dimension, and takes it away again where the model has none.
    dims = f"dims: {list(tensor.dims)}" if tensor.dims else "dims: [1] reshape { shape: [] }"
    return f"name: {_quoted(tensor.name)} data_type: {tensor.data_type} {dims}"


def _quoted(text: str) -> str:
    return f'"{CEscape(text, as_utf8=True)}"'
