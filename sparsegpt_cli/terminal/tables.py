"""Results as tables for a terminal. Loads nothing heavy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from sparsegpt_core.text import printable

if TYPE_CHECKING:
    from deploy.machine import Check

__all__ = [
    "accuracy_table",
    "doctor_table",
    "interval",
    "latency_table",
    "metrics_table",
    "number",
    "outputs_table",
    "quality_tables",
    "scientific",
    "table",
]


def table(left: Sequence[str], right: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Make a plain table of left-aligned columns, followed by right-aligned ones.

    Args:
        left: Headings of the left-aligned columns, for text.
        right: Headings of the right-aligned columns, for numbers.
        rows: The cells of each row.

    Example:
        >>> from rich.console import Console
        >>> Console(width=40).print(table(["layer"], ["zeros"], [["conv1", "50 %"]]))
        layer  zeros
        conv1   50 %
    """
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in left:
        made.add_column(name, overflow="fold")
    for name in right:
        made.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        made.add_row(*(Text(printable(cell)) for cell in row))
    return made


def outputs_table(outputs: dict[str, Any]) -> Table:
    """Make a table of the distance of each output of each version from the dense one, and of its channels."""
    rows = [
        [
            name,
            output,
            scientific(error),
            *(scientific(channels.get(output, {}).get(key)) for key in ("median", "worst")),
            str(outputs["samples"]),
        ]
        for name, errors in outputs["relative_errors"].items()
        for channels in [outputs.get("channel_errors", {}).get(name, {})]
        for output, error in errors.items()
    ]
    return table(["", "output"], ["relative error", "median channel", "worst channel", "images"], rows)


def quality_tables(content: dict[str, Any]) -> list[Table]:
    """Make the tables of a comparison: of accuracy or output errors, and of a metric's figures."""
    tables = {"accuracy": accuracy_table, "outputs": outputs_table, "metrics": metrics_table}
    return [make(content[key]) for key, make in tables.items() if content[key]]


def metrics_table(metrics: dict[str, Any]) -> Table:
    """Make a table of the metric's figures of each version, with their differences from the dense one."""
    rows = [
        [
            name,
            figure,
            f"{found['value']:.4g}",
            interval(found.get("difference"), ".3g"),
            "higher" if of["higher_is_better"] else "lower",
            str(of["samples"]),
        ]
        for figure, of in metrics.items()
        for name, found in of["versions"].items()
    ]
    return table(["", "metric"], ["value", "difference (95 %)", "better", "images"], rows)


def accuracy_table(accuracy: dict[str, Any]) -> Table:
    """Make a table of the accuracy of each version, with its difference from the dense one."""
    rows = [
        [
            name,
            number(arm["top1"], ".2f"),
            number(arm.get("top5"), ".2f"),
            interval(arm.get("difference")),
            number(arm.get("disagreement"), ".2f"),
            number(arm.get("kl"), ".2g"),
            str(arm["samples"]),
        ]
        for name, arm in accuracy.items()
        if isinstance(arm, dict) and "samples" in arm
    ]
    right = ["top-1 %", "top-5 %", "difference (95 %)", "disagrees %", "KL", "images"]
    return table(["model"], right, rows)


def latency_table(content: dict[str, Any], runtime: str) -> Table:
    """Make a table of the latency of each version. The heading names the runtime and the batch size."""
    rows = [
        [name, *(number(arm[key], ".3f") for key in ("p50_ms", "p95_ms", "p99_ms")), str(arm["samples"])]
        for name, arm in content["latency"].items()
    ]
    heading = f"latency, batch {content['latency_regime']['batch']}, {runtime}"
    return table([heading], ["p50 ms", "p95 ms", "p99 ms", "calls"], rows)


def doctor_table(checks: Sequence[Check]) -> Table:
    """Make a table of the libraries and devices of a machine."""
    rows = [
        [check.name, "ok" if check.ok else "missing", check.detail, "" if check.ok else check.fix] for check in checks
    ]
    return table(["", "", "", "how to install it"], [], rows)


def number(value: float | None, form: str) -> str:
    """Format a number that may be unknown.

    Example:
        >>> number(None, ".2f")
        '-'
    """
    return "-" if value is None else format(value, form)


def scientific(value: float | None) -> str:
    """Format an error that may be unknown.

    Example:
        >>> scientific(0.0123)
        '1.2e-02'
    """
    return number(value, ".1e")


def interval(difference: dict[str, float] | None, form: str = ".2f") -> str:
    """Format a difference with its 95 % confidence interval.

    Example:
        >>> interval({"value": -0.25, "low": -0.5, "high": 0.0})
        '-0.25 (-0.50 … +0.00)'
    """
    if difference is None:
        return "-"
    value, low, high = (f"{difference[key]:+{form}}" for key in ("value", "low", "high"))
    return f"{value} ({low} … {high})"
