"""CPU time and memory of pruning against the size of the work: ``python -m benchmarks.scale.run``.

Measures what ``benchmarks/results/scale`` lacks, and writes the tables and the chart of docs/scale.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from benchmarks.measurements import ROOT, Plan, Record, measure_missing, read_records
from benchmarks.scale.measure import Size
from benchmarks.scale.summary import summarise
from deploy.machine import describe_environment
from sparsegpt_core.files import write_json, write_text

RESULTS, PAGE = ROOT / "benchmarks" / "results" / "scale", ROOT / "docs" / "scale.md"
BASE = Size()
AXES = {
    "images": [replace(BASE, images=count) for count in (16, 32, 64, 128, 256, 512, 1024)],
    "depth": [replace(BASE, depth=count) for count in (4, 8, 16, 32)],
    "width": [replace(BASE, width=count) for count in (32, 64, 128, 256)],
    "processes": [replace(BASE, images=256, processes=count) for count in (1, 2, 4)],
}
"""The sizes of each axis: one number changes, the others stay."""
SECONDS = 1200  # for one measurement


def main() -> int:
    """Measure what is missing."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale.run", description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the raw results")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page to write")
    options = parser.parse_args()
    write_json(options.out / "environment.json", describe_environment())
    sizes = dict.fromkeys(size for axis in AXES.values() for size in axis)  # the base is part of several
    plan: Plan = [(asdict(size), partial(_measure, size)) for size in sizes]
    done = measure_missing(options.out / "sizes.jsonl", plan)
    records = read_records(options.out / "sizes.jsonl")
    write_text(
        options.page, summarise(options.page.read_text(), AXES, records, options.page.parent / "figures" / "scale.png")
    )
    print(options.page)
    return 0 if done else 1


def _measure(size: Size) -> Record | None:
    with tempfile.TemporaryDirectory() as folder:
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", f"{size.processes}"]
        command = [sys.executable, *(launcher if size.processes > 1 else []), "-m", "benchmarks.scale.measure"]
        done = subprocess.run(
            [*command, json.dumps(asdict(size)), folder],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )
        if done.returncode:
            print(f"  failed with status {done.returncode}: {done.stderr.strip()[-2000:]}", file=sys.stderr)
            return None
        record: Record = json.loads(Path(folder, "record.json").read_text())
        return record


if __name__ == "__main__":
    sys.exit(main())
