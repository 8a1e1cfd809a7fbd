"""One tool on one file in its own process: ``python -m benchmarks.onnx.files JOB FOLDER WORK PYTHON``.

It prints one JSON line. ``PYTHON`` is that of the other tools' environment.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from benchmarks.onnx.inputs import FILES, read_inputs
from benchmarks.onnx.jobs import FileJob
from export.audit import audit_model
from export.execution import CpuSession
from export.importing import prune_onnx
from sparsegpt_core.quality import preset
from sparsegpt_core.settings import PruneSettings

__all__ = ["measure", "pruned_path"]

TESTED = 64
MAX_SECONDS = 600  # of another tool


def pruned_path(work: Path, file: str, arm: str) -> Path:
    """The file that an arm writes."""
    return work / f"{file}.{arm.replace(', ', '-').replace(' ', '-')}.onnx"


def measure(job: FileJob, folder: Path, work: Path, python: str) -> dict[str, Any]:
    """Prune a file with one tool, and compare its outputs on other photos with the dense file's."""
    source, out = folder / f"{job.file}.onnx", pruned_path(work, job.file, job.arm)
    try:
        seconds = _prune(job, source, out, folder, work, python)
    except subprocess.TimeoutExpired:
        return {**asdict(job), "error": f"not done after {MAX_SECONDS} s"}
    file, audit = FILES[job.file], audit_model(out)
    inputs = read_inputs(folder, job.file, "test", TESTED)
    batches = [inputs[start : start + file.batch] for start in range(0, len(inputs), file.batch)]
    dense, sparse = (_outputs(path, batches) for path in (source, out))
    return {
        **asdict(job),
        "seconds": seconds,
        "layers": len(audit.layers),
        "sparse_layers": audit.sparse_layers,
        "eligible_layers": audit.eligible_layers,
        "zeros": _zeros(out),
        "output_error": _relative(dense, sparse),
        **({} if file.classes is None else _class_distance(dense[0], sparse[0], file.classes, file.logits)),
    }


def _prune(job: FileJob, source: Path, out: Path, folder: Path, work: Path, python: str) -> float | None:
    """Write the pruned file; return the seconds that the tool took, or None where it is another tool's file."""
    batch = FILES[job.file].batch
    if job.arm.endswith("our layers"):
        other = pruned_path(work, job.file, job.arm.partition(",")[0])
        onnx.save(_restored(onnx.load(source), onnx.load(other), onnx.load(pruned_path(work, job.file, "fast"))), out)
        return None
    images = read_inputs(folder, job.file, "calib", job.images)
    if job.arm in ("polygraphy", "onnxsim"):
        inputs = work / f"{job.file}.npy"
        np.save(inputs, images)
        command = [python, "-m", "benchmarks.onnx.others", job.arm, str(source), str(inputs), str(batch), str(out)]
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, timeout=MAX_SECONDS)
        return time.perf_counter() - start
    settings = PruneSettings(method="magnitude") if job.arm == "magnitude" else preset(job.arm).settings
    start = time.perf_counter()
    model, _ = prune_onnx(source, list(torch.split(torch.from_numpy(images), batch)), settings)
    onnx.save(model, out)
    return time.perf_counter() - start


def _restored(dense: onnx.ModelProto, other: onnx.ModelProto, ours: onnx.ModelProto) -> onnx.ModelProto:
    """Give another tool's model the dense weights back that ours has not changed."""
    before, after = ({t.name: t for t in model.graph.initializer} for model in (dense, ours))
    for tensor in other.graph.initializer:
        if tensor.name in before and before[tensor.name] == after[tensor.name]:
            tensor.CopyFrom(before[tensor.name])
    return other


def _outputs(path: Path, batches: list[Any]) -> list[Any]:
    session = CpuSession(path, path.name)
    results = [session.run([batch]) for batch in batches]
    return [np.concatenate(parts).astype(np.float64) for parts in zip(*results, strict=True)]


def _relative(dense: list[Any], sparse: list[Any]) -> float:
    """‖dense − sparse‖² / ‖dense‖² over all outputs."""
    apart = sum(float(np.square(a - b).sum()) for a, b in zip(dense, sparse, strict=True))
    return apart / sum(float(np.square(a).sum()) for a in dense)


def _class_distance(dense: Any, sparse: Any, axis: int, logits: bool) -> dict[str, float]:
    """Mean KL(dense ‖ sparse) in nats, and the share of positions with another class."""
    logs = []
    for x in (dense, sparse):
        top = x - x.max(axis, keepdims=True)
        logs.append(top - np.log(np.exp(top).sum(axis, keepdims=True)) if logits else np.log(np.maximum(x, 1e-30)))
    kl = (np.exp(logs[0]) * (logs[0] - logs[1])).sum(axis).mean()
    return {"kl": float(kl), "disagreement": 100 * float((dense.argmax(axis) != sparse.argmax(axis)).mean())}


def _zeros(path: Path) -> float:
    """The share of zeros among all weights that the audit sees."""
    layers = [layer for layer in audit_model(path).layers if layer.nonzeros is not None and layer.shape]
    entries = sum(math.prod(layer.shape or ()) for layer in layers)
    return 1 - sum(layer.nonzeros or 0 for layer in layers) / max(entries, 1)


if __name__ == "__main__":
    print(json.dumps(measure(FileJob(**json.loads(sys.argv[1])), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])))
