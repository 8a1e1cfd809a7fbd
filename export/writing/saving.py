"""Write ONNX files of any size: beyond protobuf's 2 GiB the weights lie in a file of their own."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import onnx
from onnxscript import ir

from sparsegpt_core.files import partial_folder

__all__ = ["save_model", "staged_model"]

_LIMIT = 2_000_000_000  # bytes of weights: protobuf's 2 GiB less room for the graph


def save_model(model: onnx.ModelProto, path: Path, limit: int = _LIMIT) -> None:
    """Write ``model`` to ``path``, with its weights in ``NAME.onnx.data`` beside it where they are large.

    Args:
        model: As it is; nothing in it is changed.
        path: Where to; an older model there stays until the new one is complete.
        limit: Bytes of weights that one file may hold.

    Raises:
        InputError: The files cannot be written.
    """
    with staged_model(model, path, limit):
        pass


@contextlib.contextmanager
def staged_model(model: onnx.ModelProto, path: Path, limit: int = _LIMIT) -> Iterator[Path]:
    """Write ``model`` to a folder beside ``path``, for checks; move it to ``path`` when they pass.

    Args:
        model: As it is; nothing in it is changed.
        path: Where it shall be in the end; the file given has the same name.
        limit: Bytes of weights that one file may hold.

    Raises:
        InputError: The files cannot be written.
    """
    with partial_folder(path) as folder:
        staged = folder / path.name
        _write(model, staged, limit)
        yield staged
        _move(staged, path)


def _write(model: onnx.ModelProto, path: Path, limit: int) -> None:
    graph = ir.from_proto(model)
    size = sum(value.const_value.nbytes for value in graph.graph.initializers.values() if value.const_value is not None)
    if size > limit:
        ir.save(graph, path, external_data=_data(path).name, size_threshold_bytes=1024)
    else:
        onnx.save(model, str(path))


def _move(staged: Path, path: Path) -> None:
    for file in staged.parent.iterdir():
        with file.open("rb+") as stream:
            os.fsync(stream.fileno())
    if _data(staged).exists():
        path.unlink(missing_ok=True)  # killed here, there is no model: better than an old one that reads new weights
        _data(staged).replace(_data(path))
        staged.replace(path)
    else:
        staged.replace(path)
        _data(path).unlink(missing_ok=True)  # of an older, larger model


def _data(path: Path) -> Path:
    return path.with_name(f"{path.name}.data")
