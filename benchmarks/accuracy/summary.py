"""The measurements as a page: one table for each pattern, one row for each method."""

from __future__ import annotations

from statistics import mean
from typing import Any

from benchmarks.accuracy.arms import ARMS

__all__ = ["summarise"]

_COLUMNS = {
    "disagreement": ("disagrees, %", "{:.2f}"),
    "kl": ("KL", "{:.2e}"),
    "logit_error": ("logit error", "{:.2e}"),
    "top1": ("top-1, %", "{:.2f}"),
    "seconds": ("seconds", "{:.0f}"),
}


def summarise(about: dict[str, Any], records: list[dict[str, Any]]) -> str:
    """Return Markdown: means over the draws of calibration images, and the smallest and largest in brackets."""
    lines = [
        "# What each part of pruning gains",
        f"{about['model']} on Fashion-MNIST, dense top-1 {about['top1']:.2f} %; {about['samples']} calibration images, "
        f"compared with the dense network on {about['judged']} evaluation images. Means over draws of calibration "
        "images, with (smallest … largest). Seconds were measured on a shared machine. "
        "`python -m benchmarks.accuracy.run CHECKPOINT` wrote this page from `measurements.jsonl`.",
    ]
    for pattern in dict.fromkeys(record["pattern"] for record in records):
        lines += ["", f"## {pattern}", "", _row("method", "draws", *(title for title, _ in _COLUMNS.values()))]
        lines.append(_row(*["---"] * (2 + len(_COLUMNS))))
        for name, arm in ARMS.items():
            own = [record for record in records if (record["pattern"], record["arm"]) == (pattern, name)]
            if own:
                lines.append(_row(arm.title, str(len(own)), *(_cell(own, key) for key in _COLUMNS)))
    return "\n".join(lines) + "\n"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(records: list[dict[str, Any]], key: str) -> str:
    values, form = [record[key] for record in records], _COLUMNS[key][1]
    middle = form.format(mean(values))
    spread = f" ({form.format(min(values))} … {form.format(max(values))})"
    return middle + (spread if len(values) > 1 else "")
