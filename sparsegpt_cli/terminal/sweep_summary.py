"""The results of a sweep as a table for a terminal. Loads nothing heavy."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean
from typing import Any

from rich.table import Table

from sparsegpt_cli.terminal.tables import table

__all__ = ["summary_table"]


def summary_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Show by how many points top-1 changes, or without labels how many percent change class: means over the seeds."""
    measure = "disagreement" if any(row["difference"] is None for row in rows) else "difference"
    patterns = list(dict.fromkeys(row["pattern"] for row in rows))
    found: dict[tuple[str, ...], dict[str, list[float]]] = {}
    for row in rows:
        line = row["checkpoint"], row["method"], "" if row["samples"] is None else str(row["samples"])
        found.setdefault(line, {}).setdefault(row["pattern"], []).append(row[measure])
    cells = [
        [*line, *(f"{mean(values[name]):+.2f}" if name in values else "" for name in patterns)]
        for line, values in found.items()
    ]
    return table(["checkpoint", "method", "images"], patterns, cells)
