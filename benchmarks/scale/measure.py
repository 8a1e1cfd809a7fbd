"""One size of the work, in processes of its own: ``python -m benchmarks.scale.measure SIZE FOLDER``, one JSON line.

Under ``torchrun`` the processes share the work. Each has one thread. The first process writes the record.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.measurements import Record
from sparsegpt_core.execution import Resources, World, join_world
from sparsegpt_core.pruning import prune_model
from sparsegpt_core.settings import PruneSettings

__all__ = ["Size", "measure"]

BATCH = 16


@dataclass(frozen=True)
class Size:
    """The size of the work."""

    images: int = 64
    """Calibration images."""
    depth: int = 8
    """3×3 convolutions that are pruned."""
    width: int = 64
    """Their channels."""
    processes: int = 1
    """Processes that share the work."""
    pixels: int = 14
    """Height and width of all activations."""


def measure(size: Size, scratch: Path) -> Record | None:
    """Prune a network of this size; return the CPU time and memory of the first process, None on the others."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = _network(size).eval()
    batches = [torch.randn(BATCH, 4, size.pixels, size.pixels) for _ in range(-(-size.images // BATCH))]
    batches[-1] = batches[-1][: size.images - BATCH * (len(batches) - 1)]
    with join_world(torch.device("cpu")) as world:
        counted, own = _CountedWorld(world), batches[world.share(len(batches))]
        _run(network, own[:1])
        start = time.process_time()
        _run(network, own)
        forward = time.process_time() - start
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
        before, start = _memory("VmRSS"), time.process_time()
        result = prune_model(network, own, PruneSettings(), resources=Resources(world=counted, scratch=scratch))
        seconds, peak = time.process_time() - start, _memory("VmHWM") - before
    if world.rank:
        return None
    return {
        **asdict(size),
        "cpu_seconds": seconds,
        "forward_cpu_seconds": forward,
        "peak_bytes": peak,
        "spilled_bytes": result.spilled_bytes,
        "summed_bytes": counted.summed_bytes,
    }


class _CountedWorld(World):
    """The processes, which count the bytes that they add up."""

    def __init__(self, world: World) -> None:
        super().__init__(world.rank, world.size)
        self.summed_bytes = 0

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        self.summed_bytes += sum(tensor.nbytes for tensor in tensors)
        super().add_up(tensors)


def _network(size: Size) -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(4, size.width, 3, padding=1)]
    for _ in range(size.depth):
        convolution = nn.Conv2d(size.width, size.width, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(convolution.weight)  # activations neither vanish nor explode
        layers += [nn.ReLU(), convolution]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(size.width, 10))


def _run(network: nn.Module, batches: list[Tensor]) -> None:
    with torch.inference_mode():
        for batch in batches:
            network(batch)


def _memory(field: str) -> int:
    """Return a field of Linux's status of this process, in bytes."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return 1024 * int(found[1]) if found else 0


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Size(**json.loads(sys.argv[1])), Path(folder))
    if found:
        Path(sys.argv[2], "record.json").write_text(json.dumps(found))
