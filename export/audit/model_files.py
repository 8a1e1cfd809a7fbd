"""ONNX files from anyone: what is read of them is bounded, and lies in the model's own folder."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import external_data_helper

from sparsegpt_core.errors import InputError, ModelError

__all__ = ["external_files", "load_external_data", "load_model", "read_model"]

_MOST_BYTES = 2 << 30  # of one protobuf message
_SHARED = 4  # how often tensors may share bytes: more would let a small file fill the memory
_HINT = "Save the model again, with its data in one file beside it."


def read_model(path: Path) -> onnx.ModelProto:
    """Read an ONNX file without the data in other files.

    Raises:
        InputError: The file is missing, no file, or too large.
        ModelError: It is truncated, or not ONNX.
    """
    hint = "Give the path of an .onnx file."
    try:
        if path.exists() and not path.is_dir():
            if not path.is_file():
                raise InputError(f"{path} is a device or a pipe", hint)
            if path.stat().st_size > _MOST_BYTES:
                raise InputError(f"{path} is larger than an ONNX file can be, 2 GiB", "Save it with external data.")
        return onnx.load(str(path), format="protobuf", load_external_data=False)
    except FileNotFoundError as error:
        raise InputError(f"no file at {path}", hint) from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}", hint) from error
    except (DecodeError, ValueError, TypeError, RuntimeError) as error:
        raise ModelError(f"{path} is truncated or no ONNX file: {error}", "Export the model again.") from error


def external_files(model: onnx.ModelProto, path: Path) -> dict[str, Path]:
    """Return the files that hold the model's tensors, by their paths in its folder.

    Args:
        model: As it was read from ``path``, without its external data.
        path: The model's file.

    Raises:
        InputError: A file lies outside the model's folder, also by a link, is missing or no file, or tensors claim more
            than their files hold.
    """
    home = path.parent.resolve()
    found: dict[str, Path] = {}
    claimed = 0
    for info in _tensors(model):
        name = info.location
        if name not in found:
            found[name] = _inside(home, name, path)
        claimed += found[name].stat().st_size if info.length is None else info.length
    if claimed > _SHARED * sum(file.stat().st_size for file in found.values()):
        raise InputError(f"the tensors of {path} claim more than its external data holds", _HINT)
    return found


def load_external_data(model: onnx.ModelProto, path: Path) -> None:
    """Read the tensors that lie outside the model's file into the model.

    Raises:
        InputError: As :func:`external_files`, or a file is too short.
    """
    if not external_files(model, path):
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            external_data_helper.load_external_data_for_model(model, str(path.parent))
    except (OSError, TypeError, ValueError, RuntimeError, onnx.checker.ValidationError) as error:
        raise InputError(f"{path} is incomplete: {error}", "Keep its external data files beside it.") from error


def _tensors(model: onnx.ModelProto) -> Iterator[external_data_helper.ExternalDataInfo]:
    """Yield where each tensor is that lies outside the model's file."""
    for tensor in external_data_helper._get_all_tensors(model):
        if external_data_helper.uses_external_data(tensor):
            if any(isinstance(text, bytes) for entry in tensor.external_data for text in (entry.key, entry.value)):
                raise InputError(f"the external data of {tensor.name!r} is not named in UTF-8", _HINT)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # about keys that nobody reads
                    yield external_data_helper.ExternalDataInfo(tensor)
            except ValueError as error:
                raise InputError(f"the external data of {tensor.name!r} has no place: {error}", _HINT) from error


def _inside(home: Path, name: str, path: Path) -> Path:
    try:
        file = (home / name).resolve()
        inside = bool(name) and ".." not in Path(name).parts and not Path(name).is_absolute()
        if not inside or not file.is_relative_to(home):
            raise InputError(f"{path} has external data at {name!r}, outside its folder", _HINT)
        if file.is_file():
            return file
    except (OSError, RuntimeError, ValueError) as error:  # too long, a loop of links, a zero byte
        raise InputError(f"{path} has external data at {name[:80]!r}: {error}", _HINT) from error
    raise InputError(f"{path} is incomplete: no file at {file}", "Keep its external data files beside it.")


def load_model(path: Path) -> onnx.ModelProto:
    """Read an ONNX file.

    Raises:
        InputError: The file is missing, truncated, not ONNX, or its external data is, or lies outside its folder.
    """
    model = read_model(path)
    load_external_data(model, path)
    if not model.graph.node:
        raise InputError(f"{path} is truncated or no ONNX file: its graph is empty", "Export the model again.")
    return model
