"""Measures three arms of engines for each pair of files: ``python -m benchmarks.gpu.engines MODELS OUT``. No torch."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any, Dict, List, Tuple

import numpy as np
import numpy.typing as npt
import onnx

from benchmarks.gpu.machine import end_with_errors, errors_in_one_line, is_measured, require_engines
from deploy.benchmark import EngineSettings, measure_engines
from deploy.builder import BuildSettings
from export.audit import graph_inputs
from sparsegpt_core.errors import SparseGPTError
from sparsegpt_core.files import write_json

BATCHES = (1, 8, 32, 128)
SETTINGS = EngineSettings(build=BuildSettings(backend="tensorrt"))


def measure(dense: Path, sparse: Path, batch: int, settings: EngineSettings = SETTINGS) -> Dict[str, Any]:
    """Build, time and explain one pair of files at one batch; an error becomes part of the result."""
    _, images = random_images(dense, batch)
    try:
        found = measure_engines(dense, sparse, images, settings)
    except SparseGPTError as error:
        return {"dense": dense.name, "sparse": sparse.name, "batch": batch, "error": str(error)}
    return {
        "dense": dense.name,
        "sparse": sparse.name,
        "batch": batch,
        "latency": found.latency.to_json(),
        "speedup": {name: asdict(ratio) for name, ratio in found.speedup.items()},
        "explanation": found.explanation.to_json(),
        "layer_times": found.layer_times,
        "layer_noise": found.layer_noise,
        "builds": {arm: [_brief(build) for build in group] for arm, group in found.builds.items()},
        "gpu": found.gpu,
        "cost": found.cost.to_json(),
        "environment": found.environment,
        "warnings": list(found.warnings),
    }


def random_images(model: Path, batch: int) -> Tuple[str, npt.NDArray[Any]]:
    """Return the name of a file's input, and random images (N, C, H, W) for it."""
    graph = onnx.load(str(model), load_external_data=False).graph
    (entry,) = graph_inputs(graph)
    kind, sizes = entry.type.tensor_type, [each.dim_value for each in entry.type.tensor_type.shape.dim][1:]
    images = np.random.default_rng(0).standard_normal((batch, *sizes))
    return entry.name, images.astype(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))


def sparse_of(dense: Path) -> Path:
    """Return the sparse file of a dense one, such as ``wide.sparse.int8.onnx``."""
    return dense.with_name(dense.name.replace(".dense.", ".sparse."))


def measure_all(models: Path, out: Path, names: List[str]) -> None:
    """Measure every pair at every batch, except those with a result in ``out``."""
    for dense in sorted(models.glob("*.dense.*.onnx")):
        name, _, precision, _ = dense.name.split(".")
        if names and name not in names:
            continue
        for batch in BATCHES:
            path = out / f"engines-{name}-{precision}-{batch}.json"
            if not is_measured(path):
                result = measure(dense, sparse_of(dense), batch)
                write_json(path, result)
                print(path.name, result.get("error") or result["explanation"]["verdict"], flush=True)


def _brief(build: Any) -> Dict[str, Any]:
    own = build.to_json()
    return {key: own[key] for key in ("seconds", "bytes", "eligible_layers", "chosen_layers", "build_log", "warnings")}


def main() -> None:
    """Measure the named networks, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.engines", description=__doc__)
    parser.add_argument("models", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with errors_in_one_line():
        require_engines()
    measure_all(options.models, options.out, options.names)
    end_with_errors(options.out, "engines")


if __name__ == "__main__":
    main()
