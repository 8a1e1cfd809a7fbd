"""Reads ONNX files from untrusted sources: only from the model's own folder, and no more than the files contain."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import external_data_helper

from sparsegpt_core.errors import InputError, ModelError

__all__ = ["external_files", "load_external_data", "load_model", "read_model"]

_MAX_FILE_BYTES = 2 << 30  # protobuf's limit of one message
_MAX_TENSORS_PER_BYTE = 4  # how many tensors may share a byte of a file: more would let a small file fill the memory
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


def load_external_data(model: onnx.ModelProto, path: Path) -> None:
    """Read the external data into the model.

    Raises:
        InputError: :func:`external_files` refuses a file, or a file is too short.
    """
    if not external_files(model, path):
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            external_data_helper.load_external_data_for_model(model, str(path.parent))
    except (OSError, TypeError, ValueError, RuntimeError, onnx.checker.ValidationError) as error:
        raise InputError(f"{path} is incomplete: {error}", "Keep its external data files next to it.") from error


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
    load_external_data(model, path)
    if not model.graph.node:
        raise InputError(f"{path} is truncated or not an ONNX file: its graph is empty", "Export the model again.")
    return model
