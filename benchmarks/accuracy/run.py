"""Accuracy of each pruning method on one network: ``python -m benchmarks.accuracy.run CHECKPOINT``.

The checkpoint comes from ``sparsegpt-trt train --data fashion-mnist``. Every measurement is written to disk at once:
after a kill, the next start continues.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from benchmarks.accuracy.arms import ARMS, PATTERNS
from benchmarks.accuracy.summary import summarise
from benchmarks.trained import DATA_ROOT, Trained, load_trained
from calibration.evaluation import distance, outputs_of
from calibration.sampling import calibration_batches, held_out_batches
from deploy.machine import describe_environment
from sparsegpt_core.files import read_json, write_json, write_text
from sparsegpt_core.patterns import parse_pattern

RESULTS = Path("benchmarks/accuracy/results")
SAMPLES, HELD_OUT, JUDGED = 256, 128, 3000


def main() -> int:
    """Make the missing measurements, seed by seed, and write the summary."""
    options = _options()
    trained = load_trained(options.checkpoint, options.data_root, options.judged)
    file = options.out / "measurements.jsonl"
    records = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    about = {
        "model": trained.name,
        "checkpoint_sha256": trained.sha256,
        "samples": SAMPLES,
        "judged": options.judged,
        "top1": _top1(trained.outputs, trained.labels),
        "environment": describe_environment(),
    }
    about_file = options.out / "about.json"
    if records and read_json(about_file)["checkpoint_sha256"] != about["checkpoint_sha256"]:
        sys.exit(f"error: {about_file} is of another checkpoint\nhint: give another --out")
    write_json(about_file, about)
    done = {(record["pattern"], record["arm"], record["seed"]) for record in records}
    for seed in options.seeds:
        calibration = calibration_batches(trained.training, SAMPLES, 32, seed)
        held_out = held_out_batches(trained.training, SAMPLES, HELD_OUT, 32, seed)
        for pattern in options.patterns:
            for arm in options.arms:
                if (pattern, arm, seed) in done or pattern not in ARMS[arm].patterns:
                    continue
                record = _measure(trained, arm, pattern, calibration, held_out)
                records.append({"pattern": pattern, "arm": arm, "seed": seed, **record})
                print(json.dumps(records[-1]), flush=True)
                write_text(file, "".join(json.dumps(record) + "\n" for record in records))
                write_text(options.out / "README.md", summarise(about, records))
    return 0


def _measure(
    trained: Trained, arm: str, pattern: str, calibration: list[Tensor], held_out: list[Tensor]
) -> dict[str, Any]:
    pruned = copy.deepcopy(trained.model)
    start = time.perf_counter()
    other = ARMS[arm].prune(pruned, calibration, parse_pattern(pattern), held_out)
    seconds = time.perf_counter() - start
    pruned = other if isinstance(other, nn.Module) else pruned
    outputs = outputs_of(pruned, trained.images)
    found = distance(trained.outputs, outputs).to_json()
    return {**found, "top1": _top1(outputs, trained.labels), "seconds": round(seconds, 1)}


def _top1(outputs: Tensor, labels: Tensor) -> float:
    return 100 * float((outputs.argmax(1) == labels).double().mean())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy.run", description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data-root", type=Path, default=DATA_ROOT)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=[name for name in ARMS if "snows" not in name])
    parser.add_argument("--patterns", nargs="+", default=list(PATTERNS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--judged", type=int, default=JUDGED, help="number of evaluation images")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
