"""Make the missing measurements, each in a new process, and write docs/real-networks.md.

Every measurement is written to disk at once: after a kill, the next start continues. Each names the processor that it
was made on.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

from benchmarks.measurements import Plan, Record, measure_apart, measure_missing
from benchmarks.real_networks.jobs import PRECISE, ROWS, MethodJob
from benchmarks.real_networks.networks import NETWORKS
from benchmarks.real_networks.summary import PAGE, summarise
from deploy.machine import describe_environment
from sparsegpt_core.files import read_json, write_json, write_text

RESULTS = Path("benchmarks/results/real_networks")
PARTS = ("gains", "methods", "precisions")


def main() -> int:
    """Run the requested measurements; exit 1 if one failed."""
    options = _options()
    here, path = describe_environment(), options.out / "environment.json"
    environments = read_json(path) if path.exists() else {}
    if environments.setdefault(here["cpu"], here)["versions"] != here["versions"]:
        sys.exit(f"error: {path} has other versions for a {here['cpu']}\nhint: give another --out")
    write_json(path, environments)
    networks = [name for name in options.networks if _is_there(name, options.files)]
    plans = {"gains": _plan_gains, "methods": _plan_methods, "precisions": _plan_precisions}
    done = [measure_missing(options.out / f"{part}.jsonl", plans[part](networks, options)) for part in options.parts]
    write_text(options.page, summarise(PAGE.read_text(), options.out))
    print(options.page)
    return 0 if all(done) else 1


def _options() -> argparse.Namespace:
    methods = list(dict.fromkeys(method for method, _ in ROWS))
    parser = argparse.ArgumentParser(prog="python -m benchmarks.real_networks.run", description=__doc__)
    parser.add_argument("--files", type=Path, required=True, help="folder of networks and photos; README.md lists them")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the raw results")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page to write")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="measure only these parts")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=[*NETWORKS], help="only these networks")
    parser.add_argument("--methods", nargs="+", choices=methods, default=methods, help="only these methods")
    parser.add_argument(
        "--layers", nargs="+", choices=("all", "pays"), default=["all", "pays"], help="only these layers"
    )
    parser.add_argument("--draws", nargs="+", type=int, default=[0, 1], help="seeds of the draws of calibration photos")
    parser.add_argument("--onnxsim-python", default=".venv-onnx/bin/python", help="a Python with onnxsim")
    return parser.parse_args()


def _is_there(name: str, folder: Path) -> bool:
    found = (folder / NETWORKS[name].file).exists()
    if not found:
        print(f"{NETWORKS[name].file} is not in {folder}: left out")
    return found


def _plan_gains(networks: list[str], options: argparse.Namespace) -> Plan:
    return [_step("gains", {"network": name}, options) for name in networks]


def _plan_methods(networks: list[str], options: argparse.Namespace) -> Plan:
    """List the methods draw by draw. Magnitudes are the same in every draw."""
    return [
        _step("methods", asdict(MethodJob(name, *row, draw)), options)
        for draw in options.draws
        for name in networks
        for row in ROWS
        if row[0] in options.methods and row[1] in options.layers
        if not (row[0] == "magnitude" and draw != options.draws[0])
    ]


def _plan_precisions(networks: list[str], options: argparse.Namespace) -> Plan:
    return [
        _step("precisions", asdict(MethodJob(name, *row, draw)), options)
        for draw in options.draws
        for name in networks
        if NETWORKS[name].inputs.logits
        for row in PRECISE
    ]


def _step(part: str, job: Record, options: argparse.Namespace) -> tuple[Record, Callable[[], Record | None]]:
    return job, partial(_measure, part, json.dumps(job), options.files, options.onnxsim_python)


def _measure(*arguments: str | Path) -> Record | None:
    record = measure_apart("benchmarks.real_networks.measure", *arguments)
    return record and record | {"cpu": describe_environment()["cpu"]}


if __name__ == "__main__":
    sys.exit(main())
