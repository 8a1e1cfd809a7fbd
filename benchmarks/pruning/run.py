"""Make the missing measurements, each in a new process, and write the summary.

Every measurement is written to disk at once: after a kill, the next start continues.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from benchmarks.measurements import Record, measure_apart, read_records, write_records
from benchmarks.pruning.records import Job
from benchmarks.pruning.summary import summarise
from deploy.machine import describe_environment
from sparsegpt_core.files import read_json, write_json

RESULTS = Path("benchmarks/pruning/results")
QUICK = Path("out/bench-pruning")
ARMS = ("dense", "default", "plain", "straightforward", "modelopt")
REPEATED = ("default", "plain")  # the others run once: they are slow
MODELS = ("torchvision:resnet50", "torchvision:resnet18", "vgg16_cifar")
DEEPER = tuple(f"torchvision:resnet{depth}" for depth in (18, 34, 50, 101))


def plan(repeats: int, quick: bool) -> list[Job]:
    """List the measurements round by round: a slow period of the machine then affects every arm."""
    if quick:
        return [*(Job("simple_cnn", arm, 8) for arm in ARMS), Job("simple_cnn", "default", 16)]
    jobs = [Job(model, arm, 128) for model in MODELS for arm in ARMS]
    jobs += [Job("torchvision:resnet50", "default", images) for images in (32, 64, 256)]
    jobs += [Job(model, "default", 32) for model in DEEPER]
    jobs += [Job(model, "straightforward", 32) for model in DEEPER[:3]]  # the deepest network would take six minutes
    for number in range(1, repeats):
        jobs += [Job(model, arm, 128, number) for model in MODELS for arm in REPEATED]
    return list(dict.fromkeys(jobs))


def main() -> int:
    """Run the requested measurements; exit 1 if one failed."""
    options = _options()
    jobs = [job for job in plan(options.repeats, options.quick) if job.arm in options.arms]
    records_file, environment_file = options.out / "measurements.jsonl", options.out / "environment.json"
    records = read_records(records_file)
    if options.fresh:
        records = [record for record in records if _job(record) not in jobs]
    here = describe_environment()
    if records and read_json(environment_file) != here:
        sys.exit(f"error: {environment_file} is of another machine or other versions\nhint: --fresh, or another --out")
    write_json(environment_file, here)
    failed = False
    todo = [job for job in jobs if job not in {_job(record) for record in records}]
    for number, job in enumerate(todo, 1):
        print(f"{number}/{len(todo)}: {job.arm}, {job.model}, {job.images} images", flush=True)
        record = _measure(job, options.modelopt_python)
        if record is None:
            failed = True
            continue
        print(f"  {record['seconds']:.1f} s", flush=True)
        records.append(record)
        write_records(records_file, records)
    if any(record["arm"] == "default" for record in records):
        summarise(records, here, options.out)
        print(options.out / "README.md")
    return 1 if failed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pruning.run", description=__doc__)
    parser.add_argument("--out", type=Path, help=f"folder of the results (default: {RESULTS}; {QUICK} with --quick)")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS, help="measure only these arms")
    parser.add_argument("--repeats", type=int, default=2, help="rounds of the arms default and plain")
    parser.add_argument("--fresh", action="store_true", help="repeat the existing measurements of the chosen arms")
    parser.add_argument("--quick", action="store_true", help="test the benchmark on a toy network")
    parser.add_argument("--modelopt-python", default=".venv-modelopt/bin/python", help="a Python with nvidia-modelopt")
    options = parser.parse_args()
    options.out = options.out or (QUICK if options.quick else RESULTS)
    return options


def _measure(job: Job, modelopt_python: str) -> Record | None:
    python = modelopt_python if job.arm == "modelopt" else sys.executable
    return measure_apart("benchmarks.pruning.measure", json.dumps(asdict(job)), python=python)


def _job(record: Record) -> Job:
    return Job(record["model"], record["arm"], record["images"], record["round"])


if __name__ == "__main__":
    sys.exit(main())
