"""Measurements that run in processes of their own, and their records: a file of JSON lines that grows by each one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sparsegpt_core.files import write_text

__all__ = ["Plan", "Record", "measure_apart", "measure_missing", "read_records", "write_records"]

ROOT = Path(__file__).resolve().parents[1]

Record = dict[str, Any]
Plan = Sequence[tuple[Record, Callable[[], Record | None]]]
"""What to measure, as it starts each record, and how."""


def measure_apart(module: str, *arguments: str | Path, python: str | Path = sys.executable) -> Record | None:
    """Run a module in a new process; return the record in its last line, or None, said, where there is none."""
    command = [python, "-W", "ignore", "-m", module, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"  failed with status {done.returncode}: {done.stderr.strip()[-2000:]}", file=sys.stderr)
        return None
    record: Record | None = json.loads(done.stdout.splitlines()[-1]) if done.stdout else None
    return record


def read_records(path: Path) -> list[Record]:
    """Read the records of a file; none if it is missing."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def write_records(path: Path, records: Sequence[Record]) -> None:
    """Write the records to a file."""
    write_text(path, "".join(json.dumps(record) + "\n" for record in records))


def measure_missing(path: Path, plan: Plan, *, fresh: bool = False) -> bool:
    """Make the measurements that a file of records lacks, and write each at once; return whether all succeeded.

    Args:
        path: The file. Its name without the suffix is that of the part, in what is printed.
        plan: The measurements.
        fresh: Whether to begin without the existing records.
    """
    records = [] if fresh else read_records(path)
    todo = [(job, run) for job, run in plan if not any(job.items() <= record.items() for record in records)]
    failed = 0
    for number, (job, run) in enumerate(todo, 1):
        print(f"{path.stem} {number}/{len(todo)}: {', '.join(map(str, job.values()))}", flush=True)
        record = run()
        if record is None:
            failed += 1
            continue
        records.append(record)
        write_records(path, records)
    return not failed
