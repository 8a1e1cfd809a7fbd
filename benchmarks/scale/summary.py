"""The tables and the chart of docs/scale.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from benchmarks.measurements import Record
from benchmarks.pages import fill, table_line
from benchmarks.scale.measure import Size
from sparsegpt_core.files import atomic_path

__all__ = ["summarise"]

_MIB = 1 << 20


def summarise(page: str, axes: Mapping[str, Sequence[Size]], records: Sequence[Record], chart: Path) -> str:
    """Return the page with its tables, and draw the chart as PNG."""
    rows = {axis: [_record(records, size) for size in sizes] for axis, sizes in axes.items()}
    _draw(rows, chart)
    return fill(page, {axis: _table(axis, found) for axis, found in rows.items()})


def _record(records: Sequence[Record], size: Size) -> Record:
    return next(record for record in records if asdict(size).items() <= record.items())


def _table(axis: str, rows: Sequence[Record]) -> list[str]:
    head = [axis, "CPU s", "forward, CPU s", "ratio", "peak, MiB"]
    head += ["added up, MiB"] if axis == "processes" else []
    lines = [table_line(*head), table_line(*["---"] * len(head))]
    for row in rows:
        seconds, forward = row["cpu_seconds"], row["forward_cpu_seconds"]
        cells = [row[axis], f"{seconds:.1f}", f"{forward:.2f}", f"{seconds / forward:.1f}"]
        cells += [f"{row['peak_bytes'] / _MIB:.0f}"]
        cells += [f"{row['summed_bytes'] / _MIB:.0f}" if row["processes"] > 1 else "–"] if axis == "processes" else []
        lines.append(table_line(*cells))
    return lines


def _draw(rows: Mapping[str, Sequence[Record]], path: Path) -> None:
    matplotlib.use("agg")
    figure = Figure(figsize=(11, 3), layout="constrained")
    for axes, (axis, found) in zip(figure.subplots(1, len(rows)), rows.items(), strict=True):
        sizes = [record[axis] for record in found]
        axes.plot(sizes, [record["cpu_seconds"] for record in found], "o-", label="CPU seconds")
        axes.plot(sizes, [record["peak_bytes"] / _MIB / 10 for record in found], "s--", label="peak, 10 MiB")
        axes.set(xlabel=axis, xscale="log", yscale="log", xticks=sizes, xticklabels=sizes)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    figure.axes[0].legend()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, metadata={"Software": None})
