"""Measures the arms in ONNX Runtime's TensorRT provider: ``python -m benchmarks.gpu.provider MODELS OUT``. No torch."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Dict

from benchmarks.gpu.engines import random_images, sparse_of
from benchmarks.gpu.machine import end_with_errors, errors_in_one_line, is_measured
from deploy.benchmark import EngineSettings, benchmark_tensorrt_provider
from deploy.machine import TENSORRT_PROVIDER, find_runtime, require
from sparsegpt_core.errors import SparseGPTError
from sparsegpt_core.files import write_json

BATCH = 32
SETTINGS = EngineSettings(batches=(BATCH,))


def measure(dense: Path) -> Dict[str, Any]:
    """Time one pair of files; an error becomes part of the result."""
    _, images = random_images(dense, BATCH)
    about = {"dense": dense.name, "batch": BATCH}
    try:
        return {**about, **benchmark_tensorrt_provider(dense, sparse_of(dense), [(images, None)], SETTINGS).to_json()}
    except SparseGPTError as error:
        return {**about, "error": str(error)}


def main() -> None:
    """Measure the pairs without results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.provider", description=__doc__)
    parser.add_argument("models", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if TENSORRT_PROVIDER not in require("onnxruntime").get_available_providers():
        print("not measured, because this onnxruntime has no TensorRT provider: install onnxruntime-gpu")
        return
    with errors_in_one_line():
        find_runtime("onnxruntime-tensorrt")
    for dense in sorted(options.models.glob("*.dense.*.onnx")):
        name, _, precision, _ = dense.name.split(".")
        path = options.out / f"provider-{name}-{precision}.json"
        if not is_measured(path):
            result = measure(dense)
            write_json(path, result)
            print(path.name, result.get("error") or result["verdict"], flush=True)
    end_with_errors(options.out, "provider")


if __name__ == "__main__":
    main()
