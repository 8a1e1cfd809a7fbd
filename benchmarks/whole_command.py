"""The whole of ``prune-export`` against the pruning inside it: ``python -m benchmarks.whole_command``.

Each network is pruned at 224² by a process of its own, every layer that can be, with random weights; ``--trees`` takes
turns between this checkout and older ones. A record has the seconds of each step, the processor time, the load of the
machine before and after, and the SHA-256 of the files, which must not depend on the checkout. The ratio is the
command's time from its start to its end over the time of the pruning, both in wall-clock seconds of the same process.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measurements import read_records, write_records
from sparsegpt_core.files import sha256

__all__ = ["measure"]

RESULTS = Path(__file__).parent / "results" / "whole_command.jsonl"
NETWORKS = ("torchvision:resnet50", "torchvision:vgg16")
_COMPARED = (".onnx", ".data", ".safetensors")
_AROUND = ("export", "evaluate", "total")  # steps that are not the pruning


def main() -> None:
    """Measure each network with each checkout, and append the records."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", default=NETWORKS)
    parser.add_argument("--trees", nargs="*", type=Path, default=[Path(__file__).parents[1]], help="checkouts")
    parser.add_argument("--data", help="images, as for --data; default: noise")
    parser.add_argument("--samples", type=int, default=64, help="calibration images")
    parser.add_argument("--quality", default="balanced")
    parser.add_argument("--json", type=Path, default=RESULTS, help="the records, JSON lines")
    options = parser.parse_args()
    records = read_records(options.json)
    with tempfile.TemporaryDirectory() as folder:
        data = options.data or f"npz:{_noise(Path(folder, 'noise.npz'), options.samples)}"
        for network in options.networks:
            for tree in options.trees:
                arguments = ["--model", network, "--data", data, "--samples", str(options.samples)]
                record = measure(tree.resolve(), [*arguments, "--quality", options.quality], Path(folder, "out"))
                records.append({"network": network, "quality": options.quality, "samples": options.samples, **record})
                write_records(options.json, records)
                print(json.dumps({key: records[-1][key] for key in ("network", "commit", "wall", "pruning", "ratio")}))


def measure(tree: Path, arguments: list[str], out: Path) -> dict[str, Any]:
    """Run ``prune-export`` from a checkout.

    Args:
        tree: The checkout.
        arguments: Options of the command.
        out: Its output folder.

    Returns:
        ``wall``, ``cpu``, ``pruning`` and the command's own ``steps``, in seconds; their ``ratio``; ``peak_gib``;
        ``load``, the averages of a minute before and after; the digests of the ONNX files and checkpoints.

    Raises:
        subprocess.CalledProcessError: The command failed.
    """
    command = [sys.executable, "-m", "sparsegpt_cli", "prune-export", *arguments, "--layers", "all", "--force"]
    before, load, start = _cpu(), [os.getloadavg()[0]], time.perf_counter()
    done = subprocess.run(
        [*command, "--out", out, "--json", "--quiet"],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
        check=True,
    )
    wall, content = time.perf_counter() - start, json.loads(done.stdout)
    load.append(os.getloadavg()[0])
    pruning = sum(value for step, value in content["seconds"].items() if step not in _AROUND)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=tree, capture_output=True, text=True, check=True
    )
    return {
        "commit": commit.stdout.strip(),
        "wall": round(wall, 2),
        "cpu": round(_cpu() - before, 2),
        "pruning": round(pruning, 2),
        "ratio": round(wall / pruning, 3),
        "steps": content["seconds"],
        "peak_gib": round(content["peak_memory_bytes"] / 2**30, 2),
        "load": [round(each, 1) for each in load],
        "cores": os.cpu_count(),
        "files": {path.name: sha256(path)[:16] for path in sorted(out.iterdir()) if path.suffix in _COMPARED},
    }


def _cpu() -> float:
    """User and system seconds of all finished child processes."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _noise(path: Path, samples: int) -> Path:
    images = np.random.default_rng(0).integers(0, 256, (samples, 3, 224, 224), dtype=np.uint8)
    np.savez(path, images=images)
    return path


if __name__ == "__main__":
    main()
