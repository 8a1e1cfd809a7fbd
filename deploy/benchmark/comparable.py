"""Checks that two files are the dense and the sparse version of one network, so that 2:4 is all that differs."""

from __future__ import annotations

__all__ = ["check_pair", "check_sparse_kernels"]

from itertools import zip_longest
from pathlib import Path
from typing import Optional, Tuple

from deploy.graph import Graph, OnnxFile
from sparsegpt_core.errors import InputError


def check_pair(dense: OnnxFile, sparse: OnnxFile) -> None:
    """Check that two files are one network in one precision, in the order dense, sparse.

    The layers with constant weights must agree in operator, weight shape and groups, in the graphs' order. The files
    are swapped if the first one records pruned layers and the second does not, or if it has more 2:4 weights.

    Raises:
        InputError: The files are different networks, swapped, or of different precision.

    Example:
        >>> check_pair(OnnxFile(Path("dense.onnx")), OnnxFile(Path("sparse.onnx")))  # doctest: +SKIP
    """
    difference = _difference(dense, sparse)
    if difference:
        raise InputError(
            f"{dense.path} and {sparse.path} are different networks: {difference}",
            "Give two exports of one network, before and after pruning.",
        )
    if _is_swapped(dense, sparse):
        raise InputError(
            f"{dense.path} is pruned and {sparse.path} is dense", "Swap the files: the dense file comes first."
        )
    precisions = dense.graph.precision, sparse.graph.precision
    if precisions[0] != precisions[1]:
        raise InputError(
            f"{dense.path} is {precisions[0]} and {sparse.path} is {precisions[1]}, "
            "so the precision's gain and loss would count as those of 2:4",
            _hint(dense, sparse),
        )


def check_sparse_kernels(dense: OnnxFile, sparse: OnnxFile) -> None:
    """Check that TensorRT has sparse kernels for the files' precision.

    Raises:
        InputError: The sparse file is FP32.

    Example:
        >>> check_sparse_kernels(OnnxFile(Path("d.fp16.onnx")), OnnxFile(Path("s.fp16.onnx")))  # doctest: +SKIP
    """
    if not sparse.graph.has_sparse_kernels:
        raise InputError(f"{sparse.path} is FP32, for which TensorRT has no sparse kernels", _hint(dense, sparse))


def _difference(dense: OnnxFile, sparse: OnnxFile) -> Optional[str]:
    """Return the first difference between the networks, or None."""
    sizes = [[dims[1:] for dims in file.graph.inputs.values()] for file in (dense, sparse)]
    if sizes[0] != sizes[1]:
        return f"their inputs are {sizes[0]} and {sizes[1]} without the batch"
    for number, pair in enumerate(zip_longest(_layers(dense), _layers(sparse)), start=1):
        if pair[0] != pair[1]:
            first, second = (each or "missing" for each in pair)
            return f"weighted layer {number} is {first} in the first and {second} in the second"
    return None


def _layers(file: OnnxFile) -> Tuple[str, ...]:
    return tuple(
        f"{layer.op} {'x'.join(map(str, layer.shape))}" + (f" in {layer.groups} groups" if layer.groups > 1 else "")
        for layer in file.audit.layers
        if layer.shape is not None
    )


def _is_swapped(dense: OnnxFile, sparse: OnnxFile) -> bool:
    recorded = _records_pruning(dense.graph), _records_pruning(sparse.graph)
    if recorded[0] != recorded[1]:
        return recorded[0]
    return dense.audit.sparse_layers > sparse.audit.sparse_layers


def _records_pruning(graph: Graph) -> bool:
    from export.audit import read_metadata

    return bool(read_metadata(graph.model).get("pruned"))


def _hint(dense: OnnxFile, sparse: OnnxFile) -> str:
    """Name the FP16 or INT8 exports next to the files, or the setting that writes them."""
    for precision in ("fp16", "int8"):
        paths = [_in_precision(file.path, precision) for file in (dense, sparse)]
        if all(path.is_file() for path in paths):
            return f"Compare {paths[0]} with {paths[1]}."
    return "Export both files with `precision=fp16`, or both with `precision=int8`."


def _in_precision(path: Path, precision: str) -> Path:
    """Return the path that ``prune-export`` gives to the same network in another precision."""
    name = path.name
    for ending in (".fp16.onnx", ".int8.onnx", ".onnx"):
        if name.endswith(ending):
            name = name[: -len(ending)]
            break
    return path.with_name(f"{name}.{precision}.onnx")
