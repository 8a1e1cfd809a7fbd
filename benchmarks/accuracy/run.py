"""Accuracy of every way to prune one network: ``python -m benchmarks.accuracy.run CHECKPOINT``.

The checkpoint is one of ``sparsegpt-trt train --data fashion-mnist``. Every measurement is on disk as soon as it is
made: killed and started again, the run continues.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.accuracy.arms import ARMS
from benchmarks.accuracy.summary import summarise
from calibration.arrays import Data, open_data, subset
from calibration.compare import distance, outputs_of
from calibration.sampling import calibration_batches
from deploy.environment import environment
from sparsegpt_core.artifacts import read_json, sha256, write_json, write_text
from sparsegpt_core.checkpoint import load_checkpoint, load_into
from sparsegpt_core.patterns import parse_pattern
from sparsegpt_core.zoo import ModelShape, build_model

RESULTS = Path("benchmarks/accuracy/results")
SAMPLES, JUDGED, BATCH = 256, 3000, 100


def main() -> int:
    """Measure what is not measured yet, seed by seed, and write the summary."""
    options = _options()
    checkpoint = load_checkpoint(options.checkpoint)
    noted = checkpoint.metadata
    data = open_data("fashion-mnist", root=options.data_root, mean=noted["mean"], std=noted["std"])
    model = build_model(noted["model"], ModelShape(tuple(noted["image"]), noted["num_classes"])).eval()
    load_into(model, checkpoint.state)
    images, labels = _evaluation(data, options.judged)
    reference = outputs_of(model, images)
    file = options.out / "measurements.jsonl"
    records = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    about = {
        "model": noted["model"],
        "checkpoint_sha256": sha256(options.checkpoint),
        "samples": SAMPLES,
        "judged": options.judged,
        "top1": _top1(reference, labels),
        "environment": environment(),
    }
    about_file = options.out / "about.json"
    if records and read_json(about_file)["checkpoint_sha256"] != about["checkpoint_sha256"]:
        sys.exit(f"error: {about_file} is of another checkpoint\nhint: give another --out")
    write_json(about_file, about)
    done = {(record["pattern"], record["arm"], record["seed"]) for record in records}
    for seed in options.seeds:
        calibration = calibration_batches(data.training, SAMPLES, 32, seed)
        for pattern in options.patterns:
            for arm in options.arms:
                if (pattern, arm, seed) in done:
                    continue
                record = _measure(model, arm, pattern, calibration, images, reference, labels)
                records.append({"pattern": pattern, "arm": arm, "seed": seed, **record})
                print(json.dumps(records[-1]), flush=True)
                write_text(file, "".join(json.dumps(record) + "\n" for record in records))
                write_text(options.out / "README.md", summarise(about, records))
    return 0


def _evaluation(data: Data, count: int) -> tuple[list[Tensor], Tensor]:
    split = data.evaluation
    if split is None or split.labels is None:
        sys.exit("error: the data has no labelled evaluation split")
    indices = subset(split, count, 0)
    images = [torch.from_numpy(batch) for batch, _ in split.batches(BATCH, indices)]
    return images, torch.from_numpy(split.labels[indices])


def _measure(
    model: nn.Module,
    arm: str,
    pattern: str,
    calibration: list[Tensor],
    images: list[Tensor],
    reference: Tensor,
    labels: Tensor,
) -> dict[str, Any]:
    pruned = copy.deepcopy(model)
    start = time.perf_counter()
    ARMS[arm].prune(pruned, calibration, parse_pattern(pattern))
    seconds = time.perf_counter() - start
    outputs = outputs_of(pruned, images)
    return {**distance(reference, outputs).to_json(), "top1": _top1(outputs, labels), "seconds": round(seconds, 1)}


def _top1(outputs: Tensor, labels: Tensor) -> float:
    return 100 * float((outputs.argmax(1) == labels).double().mean())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy.run", description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data-root", type=Path, default=Path("/usr/share/datasets"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--patterns", nargs="+", default=["2:4", "1:4"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--judged", type=int, default=JUDGED, help="evaluation images to judge on")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
