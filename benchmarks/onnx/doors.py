"""One door on one network in its own process: ``python -m benchmarks.onnx.doors JOB FOLDER``, one JSON line.

The door ``prepare`` trains the network and writes its ONNX files.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from benchmarks.onnx.jobs import DoorJob
from benchmarks.onnx.networks import BATCH, build, digits, trained
from export.audit import load_model
from export.importing import OnnxNetwork
from export.writing import export_model
from sparsegpt_core.pruning import prune_model
from sparsegpt_core.settings import PruneSettings

__all__ = ["compare", "measure", "prepare"]

FILES = ("folded", "unfolded")  # the doors that read an ONNX file


def prepare(job: DoorJob, folder: Path) -> None:
    """Train the network once; write its weights, its ONNX files, and the weights that each door sees."""
    network, (images, _) = trained(job.network), digits(job.network, 0, 1)
    torch.save(network.state_dict(), folder / f"{job.network}.pt")
    _save_weights(network, folder / f"{job.network}.pytorch.dense.npz")
    for door in FILES:
        model = export_model(network, (images,), fold_batch_norm=door == "folded")
        onnx.save(model, folder / f"{job.network}.{door}.onnx")
        _save_weights(OnnxNetwork(model), folder / f"{job.network}.{door}.dense.npz")


def measure(job: DoorJob, folder: Path) -> dict[str, Any]:
    """Prune through one door: what :func:`~export.importing.prune_onnx` does, or ``prune_model`` on the module."""
    batches = list(torch.split(digits(job.network, 0, job.images)[0], BATCH))
    module = None if job.door in FILES else build(job.network)
    torch.backends.mkldnn.enabled = job.door != "other kernels"
    resident, start, processor = _resident_bytes(), time.perf_counter(), time.process_time()
    if module is not None:
        module.load_state_dict(torch.load(folder / f"{job.network}.pt", weights_only=True))
        network: nn.Module = module
    else:
        network = OnnxNetwork(load_model(folder / f"{job.network}.{job.door}.onnx"))
    opened = time.perf_counter()
    result = prune_model(network, batches, PruneSettings())
    if isinstance(network, OnnxNetwork):
        network.to_onnx()
    seconds, processor = time.perf_counter() - start, time.process_time() - processor
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # KiB on Linux
    _save_weights(network, folder / f"{job.network}.{job.door}.sparse.npz")
    return {
        **asdict(job),
        "seconds": seconds,
        "opening_seconds": opened - start,
        "cpu_seconds": processor,
        "resident_before_bytes": resident,
        "peak_bytes": peak,
        "layers": sum(layer.status == "pruned" for layer in result.layers),
        "threads": torch.get_num_threads(),
        **(compare(job.network, job.door, folder) if job.door != "pytorch" else {}),
    }


def compare(network: str, door: str, folder: Path) -> dict[str, Any]:
    """Compare the weights after a door with those after PyTorch's. Folded rows are compared up to their factor."""
    dense = np.load(folder / f"{network}.{door if door in FILES else 'pytorch'}.dense.npz")
    sparse = np.load(folder / f"{network}.{door}.sparse.npz")
    their_dense, their_sparse = (np.load(folder / f"{network}.pytorch.{kind}.npz") for kind in ("dense", "sparse"))
    entries = differing = 0
    errors, only_one = [0.0], 0
    for name in their_dense.files:
        theirs = their_sparse[name]
        pruned = [np.count_nonzero(each == 0) > 0.4 * each.size for each in (sparse[name], theirs)]
        only_one += int(pruned[0] != pruned[1])
        if not all(pruned):
            continue
        entries += theirs.size
        differing += int(np.count_nonzero((sparse[name] == 0) != (theirs == 0)))
        a, b = (each[name].reshape(len(theirs), -1).astype(np.float64) for each in (dense, their_dense))
        factor = (a * b).sum(1) / np.maximum((b * b).sum(1), 1e-300)
        expected = theirs.reshape(len(theirs), -1) * factor[:, None]
        apart = sparse[name].reshape(expected.shape) - expected
        errors.append(float(np.linalg.norm(apart) / max(float(np.linalg.norm(expected)), 1e-300)))
    return {
        "entries": entries,
        "different_mask_entries": differing,
        "layers_of_one_door": only_one,
        "largest_weight_error": max(errors),
    }


def _save_weights(network: nn.Module, path: Path) -> None:
    """Write the weights of the layers that both doors know."""
    weights = {
        name: module.weight.detach().numpy()
        for name, module in network.named_modules()
        if isinstance(module, (nn.Conv2d, nn.Linear)) and getattr(module, "groups", 1) == 1
    }
    np.savez(path, **weights)


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


if __name__ == "__main__":
    JOB, FOLDER = DoorJob(**json.loads(sys.argv[1])), Path(sys.argv[2])
    if JOB.door == "prepare":
        prepare(JOB, FOLDER)
    else:
        print(json.dumps(measure(JOB, FOLDER)))
