"""Measures engines' accuracy on all test images: ``python -m benchmarks.gpu.accuracy MODELS OUT``. Needs no torch."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Iterator, List, Tuple

import numpy as np

from benchmarks.gpu.engines import SETTINGS, sparse_of
from benchmarks.gpu.machine import end_with_errors, errors_in_one_line, is_measured, require_engines
from deploy.benchmark import benchmark_engines
from deploy.measure import LabelledImages
from sparsegpt_core.errors import SparseGPTError
from sparsegpt_core.files import read_json, write_json

BATCH = 125  # divides 10,000


def batches(path: Path) -> Iterator[LabelledImages]:
    """Read the images (N, C, H, W) and labels (N,) that ``benchmarks.gpu.models`` wrote."""
    with np.load(path) as kept:
        images, labels = kept["images"], kept["labels"]
    for start in range(0, len(images), BATCH):
        yield images[start : start + BATCH].astype(np.float32), labels[start : start + BATCH]


def pairs(models: Path) -> List[Tuple[str, Path, Path]]:
    """List the precision, dense file and sparse file of every trained network in the folder."""
    found = []
    for images in sorted(models.glob("*.npz")):
        for dense in sorted(models.glob(f"{images.stem}.dense.*.onnx")):
            found.append((dense.name.split(".")[2], dense, sparse_of(dense)))
    return found


def main() -> None:
    """Compare the pairs without results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.accuracy", description=__doc__)
    parser.add_argument("models", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with errors_in_one_line():
        require_engines()
    found_pairs = pairs(options.models)
    if not found_pairs:
        print(f"not measured, because {options.models} has no trained network")
    for precision, dense, sparse in found_pairs:
        name = dense.name.split(".")[0]
        path = options.out / f"accuracy-{name}-{precision}.json"
        if is_measured(path):
            continue
        settings = replace(SETTINGS, batches=(BATCH,))
        about = read_json(options.models / f"{name}.json")
        try:
            found = benchmark_engines(dense, sparse, list(batches(options.models / f"{name}.npz")), settings).to_json()
        except SparseGPTError as error:
            found = {"error": str(error)}
        write_json(path, {"precision": precision, **about, **found})
        print(path.name, found.get("error") or found["verdict"], flush=True)
    end_with_errors(options.out, "accuracy")


if __name__ == "__main__":
    main()
