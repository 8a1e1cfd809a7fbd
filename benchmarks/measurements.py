"""Measurements that run in processes of their own, and their records: a file of JSON lines that grows by each one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sparsegpt_core.files import write_text

__all__ = ["Record", "measure_apart", "read_records", "write_records"]

ROOT = Path(__file__).resolve().parents[1]

Record = dict[str, Any]


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
