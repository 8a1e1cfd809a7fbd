"""The results of a sweep as a table for a terminal. Loads nothing heavy."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean
from typing import Any

from rich.table import Table

from sparsegpt_cli.terminal.tables import table

__all__ = ["summary_table"]


def summary_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Make a table of the change of a metric's first figure, else of top-1, else (without labels) of the disagreement.

    Top-1 is in percentage points, disagreement in percent. Each number is a mean over the seeds.
    """
    measure = "disagreement" if any(row["difference"] is None for row in rows) else "difference"
    figure = next((name for row in rows for name in row.get("metrics") or {}), None)
    patterns = list(dict.fromkeys(row["pattern"] for row in rows))
    found: dict[tuple[str, ...], dict[str, list[float]]] = {}
    for row in rows:
        key = row["checkpoint"], row["method"], "" if row["samples"] is None else str(row["samples"])
        change = _change(row, figure) if figure else row[measure]
        found.setdefault(key, {}).setdefault(row["pattern"], []).append(change)
    form = "+.3g" if figure else "+.2f"
    cells = [
        [*key, *(format(mean(values[name]), form) if name in values else "" for name in patterns)]
        for key, values in found.items()
    ]
    headings = [f"{figure}, {name}" if figure else name for name in patterns]
    return table(["checkpoint", "method", "images"], headings, cells)


def _change(row: dict[str, Any], figure: str) -> float:
    versions = row["metrics"][figure]["versions"]
    return float(versions["sparse"]["value"] - versions["dense"]["value"])
