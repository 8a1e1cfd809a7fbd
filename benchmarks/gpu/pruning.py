"""Measures pruning on the GPU, and cuSPARSELt: ``python -m benchmarks.gpu.pruning OUT``.

``--device cpu`` rehearses it on the CPU with a small network and few images. Its figures are of no use.
"""

from __future__ import annotations

import argparse
import copy
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.gpu.machine import errors_in_one_line
from deploy.machine import describe_environment
from export.cusparselt import to_semi_structured
from sparsegpt_core.errors import SparseGPTError
from sparsegpt_core.execution import ALONE, Resources, World, find_device, join_world, peak_memory
from sparsegpt_core.files import write_json
from sparsegpt_core.pruning import PruneResult, prune_model
from sparsegpt_core.settings import PruneSettings
from sparsegpt_core.torchrun import rank, world_size
from sparsegpt_core.zoo import ModelShape, build_model


@dataclass(frozen=True)
class Work:
    """What is pruned."""

    model: str
    """Name of the network."""
    side: int
    """Height and width of an image."""
    images: int
    """Calibration images."""
    agreement_images: int
    """Calibration images where the CPU or several processes prune too."""
    batch: int
    """Images of a batch."""


WORK = {
    "cuda": Work("torchvision:resnet50", 224, 1024, 64, 32),
    "cpu": Work("simple_cnn", 4, 16, 8, 2),
}
ROUNDS, CALLS = 7, 50  # of cuSPARSELt
MATRICES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "VGG-16's classifier.0, 128 images": (lambda: nn.Linear(25088, 4096), (128, 25088)),
    "VGG-16's classifier.3, 128 images": (lambda: nn.Linear(4096, 4096), (128, 4096)),
    "1×1, 1024 → 256 channels, 14², 32 images": (lambda: nn.Conv2d(1024, 256, 1), (32, 1024, 14, 14)),
    "1×1, 512 → 2048 channels, 7², 32 images": (lambda: nn.Conv2d(512, 2048, 1), (32, 512, 7, 7)),
}


def prune(work: Work, images: int, device: torch.device, world: World = ALONE) -> tuple[nn.Module, dict[str, Any]]:
    """Prune the network on random images; return it, its time and its memory."""
    torch.manual_seed(0)
    model = build_model(work.model, ModelShape((3, work.side, work.side))).eval().to(device)
    own = world.share_samples(images, work.batch)
    batches = list(torch.split(torch.randn(images, 3, work.side, work.side)[own], work.batch))
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    start = time.perf_counter()
    result = prune_model(model, batches, PruneSettings(), resources=Resources(world=world))
    seconds = time.perf_counter() - start
    return model, {"images": images, "seconds": seconds, "peak_bytes": peak_memory(device), **_means(result)}


def agreement(work: Work, device: torch.device) -> dict[str, Any]:
    """Prune the same network with the same images on both devices, and compare."""
    (here, on_cpu), (there, on_gpu) = (
        prune(work, work.agreement_images, each) for each in (torch.device("cpu"), device)
    )
    return {"cpu": on_cpu, "gpu": on_gpu, **_compared(here, there)}


def nccl(work: Work, device: torch.device) -> dict[str, Any]:
    """Prune in several processes, each on its own GPU, and compare with one process."""
    with join_world(device) as world:
        together, shared = prune(work, work.agreement_images, device, world)
        size = world.size
    alone, single = prune(work, work.agreement_images, device)
    return {"processes": size, "shared": shared, "single": single, **_compared(alone, together)}


def _compared(first: nn.Module, second: nn.Module) -> dict[str, float]:
    """Return how far two prunings of one network are apart."""
    masks = equal = 0
    apart, whole = 0.0, 0.0
    for one, other in zip(first.cpu().state_dict().values(), second.cpu().state_dict().values(), strict=True):
        if one.dim() > 1:
            masks, equal = masks + one.numel(), equal + int(((one == 0) == (other == 0)).sum())
            apart, whole = apart + float((one - other).square().sum()), whole + float(one.square().sum())
    return {"equal_mask_share": equal / masks, "weight_distance": (apart / whole) ** 0.5}


def semi_structured(device: torch.device) -> list[dict[str, Any]]:
    """Time layers on cuSPARSELt against the same dense layers, both in FP16."""
    found: list[dict[str, Any]] = []
    for name, (make, shape) in MATRICES.items():
        torch.manual_seed(0)
        dense = nn.Sequential(make()).half().to(device).eval()
        x = torch.randn(shape, device=device, dtype=torch.float16)
        if x.dim() == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            weight = next(dense.parameters())
            groups = weight.view(-1, 4) if weight.dim() == 2 else weight.view(len(weight), -1).view(-1, 4)
            groups.scatter_(1, groups.abs().argsort(1)[:, :2], 0)
            sparse = copy.deepcopy(dense)
            try:
                to_semi_structured(sparse)
                error = float((sparse(x) - dense(x)).float().norm() / dense(x).float().norm())
                ratios = [_milliseconds(dense, x) / _milliseconds(sparse, x) for _ in range(ROUNDS)]
            except (SparseGPTError, RuntimeError) as failure:
                found.append({"layer": name, "error": str(failure)})
                continue
        ratio = {"median": median(ratios), "least": min(ratios), "most": max(ratios)}
        found.append({"layer": name, "relative_error": error, "dense_over_sparse": ratio})
    return found


def _milliseconds(model: nn.Module, x: Tensor) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    for _ in range(5):
        model(x)
    begin.record()
    for _ in range(CALLS):
        model(x)
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / CALLS


def _means(result: PruneResult) -> dict[str, Any]:
    errors = [layer.relative_error for layer in result.layers if layer.relative_error is not None]
    return {"layers": len(errors), "mean_relative_error": sum(errors) / len(errors), "stages": result.seconds}


def main() -> None:
    """Measure the parts without results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.pruning", description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--nccl", action="store_true", help="several processes, as torchrun starts them")
    parser.add_argument("--device", choices=WORK, default="cuda", help="cpu: a rehearsal, with gloo for NCCL")
    options = parser.parse_args()
    if options.nccl and world_size() == 1:
        sys.exit("error: NCCL needs two GPUs or more. Start it with torchrun --nproc-per-node 2.")
    processes, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", 1)), torch.cuda.device_count()
    if options.device == "cuda" and 0 < gpus < processes:
        sys.exit(f"error: {processes} processes need a CUDA GPU each, and there are {gpus}")
    with errors_in_one_line():
        device, work = find_device(options.device), WORK[options.device]
    parts: dict[str, Callable[[], Any]] = {
        "resnet50": lambda: prune(work, work.images, device)[1],
        "agreement": lambda: agreement(work, device),
    }
    if options.device == "cuda":
        parts["cusparselt"] = lambda: semi_structured(device)
    for name, measure in ({"nccl": lambda: nccl(work, device)} if options.nccl else parts).items():
        path = options.out / f"pruning-{name}.json"
        if not path.exists():
            result = measure()
            if rank() == 0:
                write_json(path, {"result": result, "environment": describe_environment()})
                print(path.name, flush=True)


if __name__ == "__main__":
    main()
