"""Options of the commands that compare a sparse network with its dense original: a metric, and limits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from sparsegpt_cli.framework import choice

if TYPE_CHECKING:
    from deploy.benchmark import Limits
    from deploy.measure import Metric
    from sparsegpt_cli.terminal import Console

__all__ = ["MetricName", "QualityOptions", "load_metric"]

MetricName = Annotated[
    str | None,
    typer.Option(
        "--metric",
        metavar="miou|map|psnr|CODE",
        help="For maps, detections, images; or FILE.py:name (runs that code).",
    ),
]


def load_metric(name: str | None, console: Console) -> Metric | None:
    """Return the metric that ``--metric`` names, or None.

    Raises:
        InputError: There is no such metric, or it cannot be imported.
    """
    from deploy.measure import load_metric as load

    if name is None:
        return None
    if ":" in name:
        console.say(f"importing and running {name}")
    return load(name)


@dataclass(frozen=True)
class QualityOptions:
    """A metric beside accuracy, and limits that make the exit status 1.

    Example:
        >>> QualityOptions(metric="miou", max_drop=["0.5", "miou=1"]).limits().max_drop
        {'top1': 0.5, 'miou': 1.0}
    """

    metric: MetricName = None
    max_drop: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]NUMBER",
            help="Exit with 1 if top-1 (percentage points) or the metric's figure NAME gets worse by more; may be "
            "repeated.",
        ),
    ] = None
    gate_disagreement: Annotated[
        float | None,
        typer.Option(metavar="PERCENT", min=0, help="Exit with 1 if more evaluation images change class."),
    ] = None
    gate_on: Annotated[
        str,
        choice("value", "bound", help="Limits apply to the measured value, or to the worse end of its 95 % interval."),
    ] = "value"

    def limits(self, min_speedup: float | None = None) -> Limits:
        """Return the limits.

        Raises:
            BadParameter: A limit is not a number of 0 or more, is given twice, or needs ``--metric``.
        """
        from deploy.benchmark import Limits

        if self.gate_on not in ("value", "bound"):
            raise typer.BadParameter(f"'{self.gate_on}' is not value or bound", param_hint="--gate-on")
        drops = _drops(self.max_drop or ())
        unknown = next((name for name in drops if name != "top1"), None)
        if unknown and self.metric is None:
            raise typer.BadParameter(f"the figure '{unknown}' needs --metric", param_hint="--max-drop")
        return Limits(drops, self.gate_disagreement, min_speedup, self.gate_on == "bound")


def _drops(texts: Sequence[str]) -> dict[str, float]:
    """Read ``NUMBER`` (of top-1) and ``NAME=NUMBER``."""
    drops: dict[str, float] = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        name = name or "top1"
        try:
            limit = float(number)
        except ValueError:
            limit = math.nan
        if not 0 <= limit < math.inf:
            raise typer.BadParameter(
                f"'{text}' is no limit: give a number of 0 or more, or NAME=NUMBER", param_hint="--max-drop"
            )
        if name in drops:
            raise typer.BadParameter(f"{name} has two limits", param_hint="--max-drop")
        drops[name] = limit
    return drops
