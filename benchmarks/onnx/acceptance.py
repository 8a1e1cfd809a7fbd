"""Whether runtimes take a sparse file: ``python -m benchmarks.onnx.acceptance FILE FOLDER WORK``, one JSON line.

The file that the arm ``balanced`` wrote is converted to FP16 and INT8. ONNX Runtime runs each file, and TensorRT-RTX
builds it.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.onnx.files import pruned_path
from benchmarks.onnx.inputs import FILES, read_inputs
from deploy.builder import BuildSettings, build_engine
from export.audit import audit_model, load_model
from export.exporter import TOLERANCE, Exporter
from export.importing import OnnxNetwork
from sparsegpt_cli.jobs.int8_graphs import Int8Quantiser
from sparsegpt_core.errors import SparseGPTError
from sparsegpt_core.patterns import NM

__all__ = ["measure"]

COMPUTE_CAPABILITY = "8.6"
CALIBRATED = 32  # images for INT8 ranges


def measure(file: str, folder: Path, work: Path) -> dict[str, Any]:
    """Return for each precision the difference from the FP32 file in ONNX Runtime, and what TensorRT-RTX says."""
    network = OnnxNetwork(load_model(pruned_path(work, file, "balanced")))
    batches = list(torch.split(torch.from_numpy(read_inputs(folder, file, "calib", CALIBRATED)), FILES[file].batch))
    exporter = Exporter(network, batches[0], {}, NM(2, 4), (), quantise=Int8Quantiser(batches))
    return {"file": file, **{precision: _taken(exporter, precision, file, batches[0], work) for precision in TOLERANCE}}


def _taken(exporter: Exporter, precision: str, file: str, images: Tensor, work: Path) -> dict[str, Any]:
    path, found = work / f"{file}.sparse.{precision}.onnx", dict[str, Any]()
    try:
        found["parity"] = exporter.write(path, precision).parity.relative
        found["sparse_layers"] = audit_model(path).sparse_layers
        start, shape = time.perf_counter(), tuple(images.shape)
        shapes = dict.fromkeys(_input_names(path), (shape,) * 3)
        build = BuildSettings(backend="tensorrt-rtx", compute_capability=COMPUTE_CAPABILITY, shapes=shapes)
        found["engine_bytes"] = build_engine(path, work / f"{file}.{precision}.plan", build).bytes
        found["build_seconds"] = time.perf_counter() - start
    except SparseGPTError as error:
        found["error"] = str(error).splitlines()[0]
    return found


def _input_names(path: Path) -> list[str]:
    graph = load_model(path).graph
    stored = {tensor.name for tensor in graph.initializer}
    return [each.name for each in graph.input if each.name not in stored]


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))))
