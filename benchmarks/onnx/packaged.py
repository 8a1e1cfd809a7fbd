"""Prune every model in the onnx package: ``python -m benchmarks.onnx.packaged``, two minutes on one core.

These are its networks, and the models of its tests of operators: as they are, and with the first input alone, so that
the other inputs, weights among them, are constants. Every layer is pruned with noise as images. It prints how many
models were pruned and how many were refused with an error of ours. Any other exception ends it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from onnx.backend.test.case.node import collect_testcases
from torch import Tensor

from export.audit import load_model
from export.importing import prune_onnx
from sparsegpt_core.errors import SparseGPTError
from sparsegpt_core.settings import PruneSettings

__all__ = ["FILES", "attempt", "noise"]

FILES = sorted(Path(onnx.__file__).parent.glob("backend/test/data/**/*.onnx"))
_NUMBERS = {np.dtype(name) for name in ("u1", "i1", "i2", "i4", "i8", "f2", "f4", "f8", "?")}


def main() -> None:
    """Print the counts for each kind of model."""
    kinds = {
        "networks": map(load_model, FILES),
        "tests of operators": (model for model, _ in _tests()),
        "with constants": (_with_constants(model, values) for model, values in _tests()),
    }
    for kind, models in kinds.items():
        print(kind, json.dumps(Counter(attempt(model)[0] for model in models)), flush=True)


def _tests() -> Iterator[tuple[onnx.ModelProto, Sequence[Any]]]:
    """The model of each test, and values for its inputs."""
    for case in collect_testcases(None):
        if case.model is not None and case.data_sets:
            yield case.model, case.data_sets[0][0]


def _with_constants(model: onnx.ModelProto, values: Sequence[Any]) -> onnx.ModelProto:
    """Turn the inputs after the first into constants, where they are tensors."""
    for each, value in [*zip(model.graph.input, values, strict=False)][1:]:
        if isinstance(value, np.ndarray):
            model.graph.initializer.append(numpy_helper.from_array(value, each.name))
            model.graph.input.remove(each)
    return model


def attempt(model: onnx.ModelProto) -> tuple[str, str]:
    """Prune all layers of a model; return ``pruned`` and their names, or ``refused`` and why."""
    try:
        sparse, result = prune_onnx(model, [noise(model)], PruneSettings(include=("*",)))
    except SparseGPTError as error:
        return "refused", str(error)
    if [node.output for node in sparse.graph.node] != [node.output for node in model.graph.node]:
        raise AssertionError(f"{model.graph.name}: the nodes are not the file's")
    return "pruned", " ".join(layer.name for layer in result.layers if layer.status == "pruned")


def noise(model: onnx.ModelProto) -> tuple[Tensor, ...]:
    """Return values for each input, in its type and in its shape, with 2 for dynamic sizes."""
    initializers, chance = {tensor.name for tensor in model.graph.initializer}, np.random.default_rng(0)
    found = []
    for each in model.graph.input:
        if each.name not in initializers:
            kind = each.type.tensor_type
            dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)) if kind.elem_type else np.dtype("f4")
            values = chance.random([size.dim_value or 2 for size in kind.shape.dim])
            found.append(torch.from_numpy(np.asarray(values, dtype if dtype in _NUMBERS else "f4")))
    return tuple(found) or (torch.zeros(2, 1),)


if __name__ == "__main__":
    main()
