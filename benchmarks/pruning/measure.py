"""One measurement in its own process: ``python -m benchmarks.pruning.measure JOB``, one JSON line."""

from __future__ import annotations

import copy
import importlib
import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.measurements import Record
from benchmarks.pruning.records import Job
from benchmarks.pruning.workload import EXCLUDE, workload
from sparsegpt_core.patterns import NM, find_violations

__all__ = ["measure"]

MODULES = {
    "default": "library",
    "plain": "library",
    "straightforward": "straightforward",
    "modelopt": "modelopt_arm",
}
Arm = Callable[[nn.Module, list[Tensor], tuple[str, ...]], None]


def measure(job: Job) -> Record:
    """Measure one arm, and the dense forward pass right before and right after it."""
    model, batches = workload(job)
    arm = _arm(job.arm)
    channels_last = _channels_last_seconds(model, batches)
    before = _forward_seconds(model, batches)
    resident, peak_before = _resident_bytes(), _peak_bytes()
    wall, cpu = time.perf_counter(), time.process_time()
    arm(model, batches, EXCLUDE.get(job.model, ()))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = _peak_bytes()
    layers = _count_layers(model)
    after = _forward_seconds(*workload(job))
    return {
        **asdict(job),
        "seconds": wall,
        "cpu_seconds": cpu,
        "forward_seconds": {"default": [before, after], "channels_last": [channels_last]},
        "resident_before_bytes": resident,
        "peak_before_bytes": peak_before,
        "peak_bytes": peak,
        **layers,
        "threads": torch.get_num_threads(),
        "versions": _versions("torch", "torchvision", "nvidia-modelopt"),
    }


def _arm(name: str) -> Arm:
    """Import one arm only: Model Optimizer has its own environment."""
    if name == "dense":
        return lambda model, batches, _: _forward(model, batches)
    arm: Arm = getattr(importlib.import_module(f"benchmarks.pruning.{MODULES[name]}"), name)
    return arm


def _channels_last_seconds(model: nn.Module, batches: list[Tensor]) -> float:
    layout = torch.channels_last
    model = copy.deepcopy(model).to(memory_format=layout)
    return _forward_seconds(model, [batch.contiguous(memory_format=layout) for batch in batches])


def _forward_seconds(model: nn.Module, batches: list[Tensor]) -> float:
    _forward(model, batches[:1])  # the first pass also selects kernels
    start = time.perf_counter()
    _forward(model, batches)
    return time.perf_counter() - start


def _forward(model: nn.Module, batches: list[Tensor]) -> None:
    with torch.inference_mode():
        for batch in batches:
            model(batch)


def _count_layers(model: nn.Module) -> dict[str, int]:
    """Count the weights with half zeros, and how many of these are 2:4 along the input channels."""
    counts = {"layers": 0, "layers_2_4": 0}
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)) and (module.weight == 0).float().mean() > 0.4:
            counts["layers"] += 1
            counts["layers_2_4"] += not find_violations(module.weight.detach().numpy(), NM(2, 4), axis=1).count
    return counts


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # KiB on Linux


def _versions(*names: str) -> dict[str, str]:
    found = {distribution.name: distribution.version for distribution in metadata.distributions()}
    return {name: found[name] for name in names if name in found}


if __name__ == "__main__":
    print(json.dumps(measure(Job(**json.loads(sys.argv[1])))))
