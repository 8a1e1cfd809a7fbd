"""Writes ONNX files of any size. Weights beyond protobuf's 2 GiB go into a second file."""

from __future__ import annotations

import contextlib
import gc
import math
import os
from collections.abc import Iterator
from pathlib import Path

import onnx
from onnxscript import ir

from sparsegpt_core.files import staged_file, writing

__all__ = ["fits_in_protobuf", "is_large", "save_model", "staged_model"]

_MAX_WEIGHT_BYTES = 2_000_000_000  # protobuf's limit of 2 GiB less room for the graph
_LARGE_BYTES = 500_000_000  # a copy of such weights matters


def fits_in_protobuf(model: onnx.ModelProto, limit: int | None = None) -> bool:
    """Return whether the model fits in one protobuf message of 2 GiB, as shape inference needs.

    Args:
        model: The model, with its weights in memory.
        limit: The largest number of bytes of weights; None for protobuf's.

    Example:
        >>> from torch import nn
        >>> from export.writing import export_model
        >>> model = export_model(nn.Linear(8, 4), (1, 1, 8))
        >>> fits_in_protobuf(model), fits_in_protobuf(model, limit=100)
        (True, False)
    """
    return _weight_bytes(model) <= (_MAX_WEIGHT_BYTES if limit is None else limit)


def is_large(model: Path | onnx.ModelProto) -> bool:
    """Return whether a model is so large that no copies of its weights should be made.

    Args:
        model: A file that :func:`save_model` wrote, or a model with its weights in memory.

    Example:
        >>> from torch import nn
        >>> from export.writing import export_model
        >>> model = export_model(nn.Linear(8, 4), (1, 1, 8))
        >>> save_model(model, Path("linear.onnx"))
        >>> is_large(model), is_large(Path("linear.onnx"))
        (False, False)
    """
    if isinstance(model, Path):
        size = sum(file.stat().st_size for file in (model, _data(model)) if file.exists())
    else:
        size = _weight_bytes(model)
    return size > _LARGE_BYTES


def save_model(model: onnx.ModelProto, path: Path, limit: int | None = None) -> None:
    """Write a model, with its weights in ``NAME.onnx.data`` next to it where they are large.

    Args:
        model: The model; it is not changed.
        path: The file to write. An older model in its place stays until the new one is complete.
        limit: The largest number of bytes of weights in one file; None for protobuf's.

    Raises:
        InputError: The files cannot be written.

    Example:
        >>> from torch import nn
        >>> from export.writing import export_model
        >>> save_model(export_model(nn.Linear(8, 4), (1, 1, 8)), Path("linear.onnx"), limit=100)
        >>> sorted(path.name for path in Path().glob("linear.*"))
        ['linear.onnx', 'linear.onnx.data']
    """
    with staged_model(model, path, limit):
        pass


@contextlib.contextmanager
def staged_model(model: onnx.ModelProto, path: Path, limit: int | None = None) -> Iterator[Path]:
    """Write a model to a temporary folder next to ``path`` for checks, and move it to ``path`` when they pass.

    Args:
        model: The model; it is not changed.
        path: The final place of the file.
        limit: The largest number of bytes of weights in one file; None for protobuf's.

    Yields:
        The temporary file, which has the same name.

    Raises:
        InputError: The files cannot be written.

    Example:
        >>> import onnx
        >>> from torch import nn
        >>> from export.writing import export_model
        >>> with staged_model(export_model(nn.Linear(8, 4), (1, 1, 8)), Path("staged.onnx")) as staged:
        ...     onnx.checker.check_model(str(staged))
        ...     Path("staged.onnx").exists()
        False
        >>> Path("staged.onnx").exists()
        True
    """
    with staged_file(path) as staged:
        with writing(path):
            _write(model, staged, limit)
        del model  # it may be as large as the memory
        yield staged
        with writing(path):
            _move(staged, path)


def _write(model: onnx.ModelProto, path: Path, limit: int | None) -> None:
    if fits_in_protobuf(model, limit):
        onnx.save(model, str(path))
    else:
        ir.save(ir.from_proto(model), path, external_data=_data(path).name, size_threshold_bytes=1024)
        gc.collect()  # the objects of an ir model refer to each other in circles, and to the weights


def _move(staged: Path, path: Path) -> None:
    for file in staged.parent.iterdir():
        with file.open("rb+") as stream:
            os.fsync(stream.fileno())
    if _data(staged).exists():
        path.unlink(missing_ok=True)  # a kill here leaves no model, which is safer than an old one with new weights
        _data(staged).replace(_data(path))
        staged.replace(path)
    else:
        staged.replace(path)
        _data(path).unlink(missing_ok=True)  # the weights of an older, larger model


def _data(path: Path) -> Path:
    return path.with_name(f"{path.name}.data")


def _weight_bytes(model: onnx.ModelProto) -> int:
    return sum(
        math.prod(tensor.dims) * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        for tensor in model.graph.initializer
    )
