"""Make the missing measurements, each in a new process, and write the page.

Every measurement is written to disk at once: after a kill, the next start continues. Each part is measured on one
machine, with one set of versions.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.measurements import Plan, Record, measure_apart, measure_missing
from benchmarks.onnx.inputs import FILES
from benchmarks.onnx.jobs import ARMS, DOORS, OTHER_ARMS, DoorJob, FileJob
from benchmarks.onnx.summary import summarise
from deploy.machine import describe_environment
from sparsegpt_core.files import read_json, write_json

RESULTS, QUICK = Path("benchmarks/results/onnx"), Path("out/bench-onnx/results")
WORK = Path("out/bench-onnx/work")
PARTS = ("doors", "files", "others", "acceptance")
NETWORKS = {"resnet18": 256, "mobilenet_v2": 64, "yolo_like": 64, "resnet50": 32}
IMAGES = 64  # calibration images of a file


def main() -> int:
    """Run the requested measurements; exit 1 if one failed."""
    options = _options()
    options.work.mkdir(parents=True, exist_ok=True)
    here, path = describe_environment(), options.out / "environment.json"
    environments: dict[str, Any] = read_json(path) if path.exists() else {}
    for part in options.parts:
        if environments.setdefault(part, here) != here and not options.fresh:
            sys.exit(f"error: {path}: {part} is of another machine or other versions\nhint: --fresh, or another --out")
    write_json(path, environments | dict.fromkeys(options.parts, here))
    plans = {
        "doors": _plan_doors,
        "files": partial(_plan_files, arms=ARMS),
        "others": partial(_plan_files, arms=OTHER_ARMS),
        "acceptance": _plan_acceptance,
    }
    done = [
        measure_missing(options.out / f"{part}.jsonl", plans[part](options), fresh=options.fresh)
        for part in options.parts
    ]
    summarise(options.out)
    print(options.out / "README.md")
    return 0 if all(done) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.onnx.run", description=__doc__)
    parser.add_argument("--out", type=Path, help=f"folder of the results (default: {RESULTS}; {QUICK} with --quick)")
    parser.add_argument("--work", type=Path, default=WORK, help="folder of networks and pruned files")
    parser.add_argument("--files", type=Path, help="folder of .onnx files and photos; README.md lists them")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="measure only these parts")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=[*NETWORKS], help="only these, by doors")
    parser.add_argument(
        "--doors", nargs="+", choices=DOORS, default=DOORS, help="only these doors; pytorch comes first"
    )
    parser.add_argument("--repeats", type=int, default=2, help="rounds of each door")
    parser.add_argument("--fresh", action="store_true", help="repeat the existing measurements")
    parser.add_argument("--quick", action="store_true", help="test the doors on a toy network")
    parser.add_argument("--others-python", default=".venv-onnx/bin/python", help="a Python with onnxsim and Polygraphy")
    options = parser.parse_args()
    options.out = options.out or (QUICK if options.quick else RESULTS)
    return options


def _plan_doors(options: argparse.Namespace) -> Plan:
    """List the doors round by round: a slow period of the machine then affects every door."""
    networks = {"simple_cnn": 8} if options.quick else {name: NETWORKS[name] for name in options.networks}
    jobs = [
        DoorJob(name, door, networks[name], number)
        for name in networks
        for number in range(options.repeats)
        for door in options.doors
    ]

    def measure(job: DoorJob) -> Record | None:
        if not (options.work / f"{job.network}.unfolded.dense.npz").exists():
            measure_apart("benchmarks.onnx.doors", json.dumps({**asdict(job), "door": "prepare"}), options.work)
        return measure_apart("benchmarks.onnx.doors", json.dumps(asdict(job)), options.work)

    return [(asdict(job), lambda job=job: measure(job)) for job in jobs]


def _plan_files(options: argparse.Namespace, arms: Sequence[str]) -> Plan:
    """List the tools on the files that are there. Tools on our layers need the arms ``fast`` and the tool's own."""
    files = _files(options)
    jobs = [FileJob(name, arm, IMAGES) for arm in arms for name in files]
    others = options.others_python
    return [
        (
            asdict(job),
            lambda job=job: measure_apart(
                "benchmarks.onnx.files", json.dumps(asdict(job)), options.files, options.work, others
            ),
        )
        for job in jobs
    ]


def _plan_acceptance(options: argparse.Namespace) -> Plan:
    return [
        (
            {"file": name},
            lambda name=name: measure_apart("benchmarks.onnx.acceptance", name, options.files, options.work),
        )
        for name in _files(options)
    ]


def _files(options: argparse.Namespace) -> list[str]:
    if options.files is None:
        return []
    for name in FILES:
        if not (options.files / f"{name}.onnx").exists():
            print(f"{name}.onnx is not in {options.files}: left out")
    return [name for name in FILES if (options.files / f"{name}.onnx").exists()]


if __name__ == "__main__":
    sys.exit(main())
