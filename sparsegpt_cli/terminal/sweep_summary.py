"""The results of a sweep as a table for a terminal. Loads nothing heavy."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean
from typing import Any

from rich.table import Table

from sparsegpt_cli.terminal.tables import table

__all__ = ["summary_table"]


def summary_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Make a table of the change of top-1 in percentage points; without labels, of the disagreement in percent.

    Each number is a mean over the seeds.
    """
    measure = "disagreement" if any(row["difference"] is None for row in rows) else "difference"
    patterns = list(dict.fromkeys(row["pattern"] for row in rows))
    found: dict[tuple[str, ...], dict[str, list[float]]] = {}
    for row in rows:
        key = row["checkpoint"], row["method"], "" if row["samples"] is None else str(row["samples"])
        found.setdefault(key, {}).setdefault(row["pattern"], []).append(row[measure])
    cells = [
        [*key, *(f"{mean(values[name]):+.2f}" if name in values else "" for name in patterns)]
        for key, values in found.items()
    ]
    return table(["checkpoint", "method", "images"], patterns, cells)
