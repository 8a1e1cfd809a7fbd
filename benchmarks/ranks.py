"""One process compared with two that share the work: ``python -m benchmarks.ranks``.

Prints the CPU seconds of pruning alone (without imports and model building), summed over all processes, and the
number of weights that differ.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.pruning.records import Job
from benchmarks.pruning.workload import workload
from sparsegpt_core.execution import Resources, join_world
from sparsegpt_core.pruning import prune_model
from sparsegpt_core.settings import PruneSettings
from sparsegpt_core.torchrun import rank

ROOT = Path(__file__).resolve().parents[1]


def work(model: str, images: int, out: Path) -> None:
    """Prune this process's share and write its times; the first process also writes the weights."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # bit-identical networks: batch norm sees one batch
    network, batches = workload(Job(model, "default", images))
    torch.set_num_threads(threads)
    with join_world(torch.device("cpu")) as world:
        share = batches[world.share(len(batches))]
        wall, cpu = time.perf_counter(), time.process_time()
        prune_model(network, share, PruneSettings(), resources=Resources(world=world))
        seconds = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    (out / f"{rank()}.json").write_text(json.dumps(seconds))
    if rank() == 0:
        torch.save(network.state_dict(), out / "weights.pt")


def run(prefix: list[str], model: str, images: int, out: Path) -> tuple[float, float, dict[str, torch.Tensor]]:
    """Run the work under ``prefix``; return wall seconds, CPU seconds of all processes, and the weights."""
    out.mkdir()
    command = [sys.executable, *prefix, "-m", "benchmarks.ranks", "--model", model, "--images", str(images)]
    subprocess.run([*command, "--work", str(out)], cwd=ROOT, check=True)
    seconds = [json.loads(path.read_text()) for path in sorted(out.glob("*.json"))]
    weights = torch.load(out / "weights.pt", weights_only=True)
    return max(s["wall"] for s in seconds), sum(s["cpu"] for s in seconds), weights


def main() -> None:
    """Compare."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ranks", description=__doc__)
    parser.add_argument("--model", default="torchvision:resnet50")
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.model, options.images, options.work)
        return
    together = ["-m", "torch.distributed.run", "--nproc-per-node", "2"]
    for number in range(options.rounds):
        with tempfile.TemporaryDirectory() as folder:
            one_wall, one_cpu, one = run([], options.model, options.images, Path(folder) / "one")
            two_wall, two_cpu, two = run(together, options.model, options.images, Path(folder) / "two")
        masks = sum(int(((one[name] == 0) != (two[name] == 0)).sum()) for name in one)
        weights = sum(int((one[name] != two[name]).sum()) for name in one)
        print(
            f"round {number}: one process {one_wall:.1f} s, {one_cpu:.1f} CPU s; "
            f"two {two_wall:.1f} s, {two_cpu:.1f} CPU s ({two_cpu / one_cpu:.2f}); "
            f"{masks} masks and {weights} weights differ",
            flush=True,
        )


if __name__ == "__main__":
    main()
