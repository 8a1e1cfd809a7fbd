"""Reads ONNX files from untrusted sources: only from the model's own folder, and no more than the files contain."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError
from onnx import external_data_helper, numpy_helper

from sparsegpt_core.errors import InputError, ModelError

__all__ = ["embedded", "external_files", "load_model", "map_model", "read_model", "tensor_value"]

_MAX_FILE_BYTES = 2 << 30  # protobuf's limit of one message
_MAX_TENSORS_PER_BYTE = 4  # how many tensors may share a byte of a file: more would let a small file fill the memory
_MIN_MAPPED_BYTES = 1 << 20  # smaller tensors are read at once
_MAPPED_TYPES = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)
_HINT = "Save the model again, with its data in one file next to it."


def read_model(path: Path) -> onnx.ModelProto:
    """Read an ONNX file without its external data.

    Raises:
        InputError: The file is missing, is not a regular file, or is too large.
        ModelError: The file is truncated or is not ONNX.

    Example:
        >>> onnx.save(onnx.helper.make_model(onnx.GraphProto(name="empty")), "empty.onnx")
        >>> read_model(Path("empty.onnx")).graph.name
        'empty'
    """
    hint = "Give the path of an .onnx file."
    try:
        if path.exists() and not path.is_dir():
            if not path.is_file():
                raise InputError(f"{path} is a device or a pipe", hint)
            if path.stat().st_size > _MAX_FILE_BYTES:
                raise InputError(f"{path} is larger than an ONNX file can be, 2 GiB", "Save it with external data.")
        return onnx.load(str(path), format="protobuf", load_external_data=False)
    except FileNotFoundError as error:
        raise InputError(f"no file at {path}", hint) from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}", hint) from error
    except (DecodeError, ValueError, TypeError, RuntimeError) as error:
        raise ModelError(f"{path} is truncated or not an ONNX file: {error}", "Export the model again.") from error


def external_files(model: onnx.ModelProto, path: Path) -> dict[str, Path]:
    """Return the files with the model's external data, by their paths in its folder.

    Args:
        model: The model as :func:`read_model` returns it.
        path: The model's file.

    Raises:
        InputError: A file is outside the model's folder (links are followed), is missing or is not a regular file, or
            the tensors claim more bytes than the files contain.

    Example:
        >>> path = Path("plain.onnx")
        >>> onnx.save(onnx.helper.make_model(onnx.GraphProto(name="plain")), path)
        >>> external_files(read_model(path), path)
        {}
    """
    home = path.parent.resolve()
    found: dict[str, Path] = {}
    claimed = 0
    for info in _tensors(model):
        name = info.location
        if name not in found:
            found[name] = _inside(home, name, path)
        claimed += found[name].stat().st_size if info.length is None else info.length
    if claimed > _MAX_TENSORS_PER_BYTE * sum(file.stat().st_size for file in found.values()):
        raise InputError(f"the tensors of {path} claim more than its external data contains", _HINT)
    return found


def _tensors(model: onnx.ModelProto) -> Iterator[external_data_helper.ExternalDataInfo]:
    """Yield the place of each tensor in the external data."""
    for tensor in external_data_helper._get_all_tensors(model):
        if external_data_helper.uses_external_data(tensor):
            if any(isinstance(text, bytes) for entry in tensor.external_data for text in (entry.key, entry.value)):
                raise InputError(f"the external data of {tensor.name!r} is not named in UTF-8", _HINT)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # about unknown keys, which have no effect
                    yield external_data_helper.ExternalDataInfo(tensor)
            except ValueError as error:
                raise InputError(f"the external data of {tensor.name!r} has no valid place: {error}", _HINT) from error


def _inside(home: Path, name: str, path: Path) -> Path:
    try:
        file = (home / name).resolve()
        inside = bool(name) and ".." not in Path(name).parts and not Path(name).is_absolute()
        if not inside or not file.is_relative_to(home):
            raise InputError(f"{path} has external data at {name!r}, outside its folder", _HINT)
        if file.is_file():
            return file
    except (OSError, RuntimeError, ValueError) as error:  # a long name, a loop of links, a zero byte
        raise InputError(f"{path} has external data at {name[:80]!r}: {error}", _HINT) from error
    raise InputError(f"{path} is incomplete: no file at {file}", "Keep its external data files next to it.")


def load_model(path: Path) -> onnx.ModelProto:
    """Read an ONNX file and its external data.

    Raises:
        InputError: The file or its external data is missing, truncated or not ONNX, or the data is outside its folder.

    Example:
        >>> from export.writing import export_model, save_model
        >>> from torch import nn
        >>> save_model(export_model(nn.ReLU(), (1, 4, 4)), Path("relu.onnx"))
        >>> load_model(Path("relu.onnx")).graph.node[0].op_type
        'Relu'
    """
    model = read_model(path)
    external_files(model, path)
    return _complete(model, path)


def map_model(path: Path) -> onnx.ModelProto:
    """Read an ONNX file, and leave large weights in its external data: :func:`tensor_value` maps them into memory.

    The model is for this process alone: it names its external data by absolute paths, which no file may have. The
    external data must not change while the model is in use.

    Raises:
        InputError: As :func:`load_model`.

    Example:
        >>> from export.writing import export_model, save_model
        >>> from torch import nn
        >>> save_model(export_model(nn.Linear(512, 512), (1, 1, 512)), Path("wide.onnx"), limit=0)
        >>> weight = next(each for each in map_model(Path("wide.onnx")).graph.initializer if len(each.dims) == 2)
        >>> len(weight.raw_data), tensor_value(weight).shape
        (0, (512, 512))
    """
    model = read_model(path)
    files = external_files(model, path)
    for tensor in model.graph.initializer:
        if external_data_helper.uses_external_data(tensor):
            _map(tensor, files)
    return _complete(model, path)


def tensor_value(tensor: onnx.TensorProto) -> npt.NDArray[Any]:
    """Return the value of a tensor. One that :func:`map_model` left in a file is mapped; writing does not change it.

    Raises:
        ValueError: The tensor is broken.
        InputError: The file is gone, or has changed.

    Example:
        >>> tensor_value(onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, [2], [1.0, 2.0])).tolist()
        [1.0, 2.0]
    """
    if not _is_mapped(tensor):
        return numpy_helper.to_array(tensor)
    info = external_data_helper.ExternalDataInfo(tensor)
    kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    try:
        value: npt.NDArray[Any] = np.memmap(info.location, kind, "c", info.offset or 0, tuple(tensor.dims))
        is_same = _version(Path(info.location)) == info.checksum
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {info.location}: {error}") from error
    if not is_same:
        raise InputError(f"{info.location} changed while it was in use", "Start again, and leave it as it is.")
    return value


def embedded(tensor: onnx.TensorProto) -> onnx.TensorProto:
    """Return a tensor with its value in the message.

    Example:
        >>> embedded(onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, [2], [1.0, 2.0])).name
        'w'
    """
    if not _is_mapped(tensor):
        return tensor
    new = onnx.TensorProto()
    new.CopyFrom(tensor)
    new.raw_data = tensor_value(tensor).tobytes()
    _forget_file(new)
    return new


def _map(tensor: onnx.TensorProto, files: dict[str, Path]) -> None:
    """Let a large tensor name its data by an absolute path, if the data is as it should be."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about unknown keys, which have no effect
        info = external_data_helper.ExternalDataInfo(tensor)
    if tensor.data_type not in _MAPPED_TYPES or min(tensor.dims, default=0) < 1:
        return
    item = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    size, offset, file = math.prod(tensor.dims) * item, info.offset or 0, files[info.location]
    if size >= _MIN_MAPPED_BYTES and info.length == size and not offset % item and offset + size <= file.stat().st_size:
        del tensor.external_data[:]
        tensor.external_data.add(key="location", value=str(file))
        tensor.external_data.add(key="offset", value=str(offset))
        tensor.external_data.add(key="checksum", value=_version(file))


def _version(file: Path) -> str:
    return str(file.stat().st_mtime_ns)


def _is_mapped(tensor: onnx.TensorProto) -> bool:
    """Whether a tensor's data is in a file that is named by an absolute path."""
    places = (entry.value for entry in tensor.external_data if entry.key == "location")
    return external_data_helper.uses_external_data(tensor) and any(Path(each).is_absolute() for each in places)


def _load_tensors(model: onnx.ModelProto, path: Path) -> None:
    """Read the external data of all tensors that are not mapped."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for tensor in external_data_helper._get_all_tensors(model):
                if external_data_helper.uses_external_data(tensor) and not _is_mapped(tensor):
                    external_data_helper.load_external_data_for_tensor(tensor, str(path.parent))
                    _forget_file(tensor)
    except (OSError, TypeError, ValueError, RuntimeError, onnx.checker.ValidationError) as error:
        raise InputError(f"{path} is incomplete: {error}", "Keep its external data files next to it.") from error


def _forget_file(tensor: onnx.TensorProto) -> None:
    tensor.data_location = onnx.TensorProto.DEFAULT
    del tensor.external_data[:]


def _complete(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """Read the rest of a model's data, and refuse an empty graph."""
    _load_tensors(model, path)
    if not model.graph.node:
        raise InputError(f"{path} is truncated or not an ONNX file: its graph is empty", "Export the model again.")
    return model
