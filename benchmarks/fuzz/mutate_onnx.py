"""Changes ONNX files: the fields of their messages, the edges of their graphs, and their bytes."""

from __future__ import annotations

import random
from typing import Any

import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, EncodeError, Message

from benchmarks.fuzz.mutate import HOSTILE_TEXT, LARGEST, mutate_bytes, mutate_json

__all__ = ["mutate_onnx"]

_OPS = (
    *(
        "Cast",
        "CastLike",
        "Constant",
        "Conv",
        "ConvTranspose",
        "DequantizeLinear",
        "F",
        "Gemm",
        "Identity",
        "If",
        "Loop",
    ),
    *("MatMul", "QuantizeLinear", "Reshape", "Transpose"),
)
_INTEGERS = (0, 1, -1, 2, 3, 4, 7, 10, 16, 17, 127, 255, 2**31 - 1, -(2**31))
_LONG = (2**31, 2**32, 2**62, 2**63 - 1, -(2**63), 10**12)
_FLOATS = (0.0, -0.0, 1.0, -1.0, 1e38, float("nan"), float("inf"), 1e-45)


def mutate_onnx(rng: random.Random, content: bytes) -> bytes:
    """Change a model."""
    if rng.random() < 0.2:
        return mutate_bytes(rng, content)
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
        for _ in range(rng.choice((1, 1, 2, 3, 6))):
            rng.choice((_field, _field, _field, _edge, _operator, _metadata, _nest))(rng, model)
        changed: bytes = model.SerializeToString()
    except (DecodeError, EncodeError, ValueError):  # some surrogates cannot be written
        return mutate_bytes(rng, content)
    return (mutate_bytes(rng, changed) if rng.random() < 0.05 else changed)[:LARGEST]


def _field(rng: random.Random, model: onnx.ModelProto) -> None:
    """Change any field of any message, including unset ones."""
    messages = _messages(model)
    message = rng.choice(messages)
    field = rng.choice(message.DESCRIPTOR.fields)
    if _repeated(field):
        _change_list(rng, getattr(message, field.name), field, messages)
    elif field.type == FieldDescriptor.TYPE_MESSAGE:
        alike = [each for each in messages if each.DESCRIPTOR is field.message_type]
        if alike and rng.random() < 0.6:
            _copy(getattr(message, field.name), rng.choice(alike))
        else:
            message.ClearField(field.name)
    elif rng.random() < 0.15:
        message.ClearField(field.name)
    else:
        setattr(message, field.name, _scalar(rng, field))


def _change_list(rng: random.Random, values: Any, field: FieldDescriptor, messages: list[Message]) -> None:
    choice = rng.randrange(5)
    if values and choice < 3:
        place = rng.randrange(len(values))
        if choice == 0:
            del values[place]
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            for _ in range(rng.choice((1, 1, 1, 40))):
                _copy(values.add(), values[place])
        elif choice == 1:
            values[place] = _scalar(rng, field)
        else:
            values.extend([values[place]] * rng.choice((1, 3, 2_000)))
    elif choice == 3:
        del values[:]
    elif field.type == FieldDescriptor.TYPE_MESSAGE:
        alike = [each for each in messages if each.DESCRIPTOR is field.message_type]
        _copy(values.add(), rng.choice(alike) if alike else None)
    else:
        values.append(_scalar(rng, field))


def _edge(rng: random.Random, model: onnx.ModelProto) -> None:
    """Let a node read or write another tensor, which makes cycles, missing names and duplicate names."""
    nodes = [each for each in _messages(model) if isinstance(each, onnx.NodeProto)]
    names = [name for node in nodes for name in (*node.input, *node.output)]
    names += [tensor.name for tensor in model.graph.initializer]
    if nodes and names:
        node = rng.choice(nodes)
        ends = node.input if rng.random() < 0.7 else node.output
        if ends:
            ends[rng.randrange(len(ends))] = rng.choice(names)


def _operator(rng: random.Random, model: onnx.ModelProto) -> None:
    nodes = [each for each in _messages(model) if isinstance(each, onnx.NodeProto)]
    if nodes:
        rng.choice(nodes).op_type = rng.choice(_OPS)


def _metadata(rng: random.Random, model: onnx.ModelProto) -> None:
    for entry in model.metadata_props:
        entry.value = mutate_json(rng, entry.value.encode(errors="surrogatepass")).decode(errors="replace")


def _nest(rng: random.Random, model: onnx.ModelProto) -> None:
    """Put the graph into the body of an If in a copy of itself, several levels deep. Protobuf reads up to 100."""
    for _ in range(rng.choice((1, 3, 20))):
        if model.graph.ByteSize() > LARGEST // 4:
            return
        inner = onnx.GraphProto()
        inner.CopyFrom(model.graph)
        del model.graph.node[1:]
        node = model.graph.node.add(op_type="If", input=["condition"], output=["nested"])
        node.attribute.add(name="then_branch", type=onnx.AttributeProto.GRAPH).g.CopyFrom(inner)


def _scalar(rng: random.Random, field: FieldDescriptor) -> Any:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_INT32 | FieldDescriptor.CPPTYPE_ENUM:
            return rng.choice(_INTEGERS)
        case FieldDescriptor.CPPTYPE_INT64:
            return rng.choice((*_INTEGERS, *_LONG))
        case FieldDescriptor.CPPTYPE_UINT32 | FieldDescriptor.CPPTYPE_UINT64:
            return rng.choice((0, 1, 255, 2**31))
        case FieldDescriptor.CPPTYPE_FLOAT | FieldDescriptor.CPPTYPE_DOUBLE:
            return rng.choice(_FLOATS)
        case FieldDescriptor.CPPTYPE_BOOL:
            return rng.random() < 0.5
    text = rng.choice((*HOSTILE_TEXT, *_OPS, "data.bin", "axis", "perm", "value", "to", "transB", "group"))
    return text.encode(errors="replace") if field.type == FieldDescriptor.TYPE_BYTES else text.replace("\ud800", "?")


def _messages(message: Message) -> list[Message]:
    """Return a message and all messages in it."""
    found: list[Message] = []
    left = [message]
    while left:
        each = left.pop()
        found.append(each)
        for field, value in each.ListFields():
            if field.type == FieldDescriptor.TYPE_MESSAGE:
                left += list(value) if _repeated(field) else [value]
    return found


def _copy(target: Any, source: Message | None) -> None:
    if source is not None and source.ByteSize() < LARGEST // 8:
        target.ParseFromString(source.SerializeToString())


def _repeated(field: FieldDescriptor) -> bool:
    known = getattr(field, "is_repeated", None)  # newer protobuf deprecates ``label``
    return bool(field.label == FieldDescriptor.LABEL_REPEATED if known is None else known)
