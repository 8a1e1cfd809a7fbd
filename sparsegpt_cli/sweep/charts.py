"""Small multiples: the loss of each method, on one logarithmic axis for all panels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from sparsegpt_cli.figures import INK, LINE, MUTED
from sparsegpt_cli.sweep.methods import METHODS
from sparsegpt_core.files import atomic_path

__all__ = ["STYLES", "WIDTH", "Panel", "legend", "panels_chart", "save", "shorten"]

WIDTH = 7.92  # inches; 760 CSS pixels
STYLES: dict[str, dict[str, Any]] = {
    "magnitude": {"color": "#757575", "marker": "X", "markersize": 6},
    "cnn-sparsegpt": {"color": "#d55e00", "marker": "s", "markersize": 5},
    "sparsegpt": {"color": "#cc79a7", "marker": "D", "markersize": 5},
    "balanced": {"color": "#0072b2", "marker": "o", "markersize": 5.5},
    "best": {"color": "#009e73", "marker": "^", "markersize": 6.5},
}
"""Okabe and Ito's colours, safe for colour-blind readers; markers for print without colour."""

_PANEL_HEIGHT_INCHES = 2.3
_ROW_LETTERS = 100  # tick labels of one row of panels have room for as many
_LINEAR_BELOW = 0.1  # points; smaller losses are drawn on a linear scale, larger ones on a logarithmic one
_TICKS = (0.0, *(sign * step * 10.0**power for power in range(-1, 3) for step in (1, 3) for sign in (-1, 1)))


@dataclass(frozen=True)
class Panel:
    """One panel."""

    title: str
    """The line above it."""
    ticks: Sequence[str]
    """A label for each place on the axis."""
    series: Mapping[str, Mapping[int, Sequence[float]]]
    """By method and place the numbers of all seeds."""


def panels_chart(panels: Sequence[Panel], ylabel: str, xlabel: str, joined: bool = False) -> Figure:
    """Draw panels, up to two in a row. Points are means over the seeds, bars show the range.

    Args:
        panels: At least one.
        ylabel: The loss and its unit.
        xlabel: The meaning of the places.
        joined: Whether lines join a method's points.
    """
    columns = min(2, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(WIDTH, 0.7 + _PANEL_HEIGHT_INCHES * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axes, panel in zip(grid.flat, panels, strict=False):
        _draw(axes, panel, joined, max(4, _ROW_LETTERS // (columns * len(panel.ticks))))
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    points = [point for panel in panels for series in panel.series.values() for point in series.values()]
    _scale(grid.flat[0], [value for point in points for value in point])
    figure.supxlabel(xlabel, fontsize="medium")
    figure.supylabel(f"{ylabel} (logarithmic)", fontsize="medium")
    legend(figure, [method for method in METHODS if any(method in panel.series for panel in panels)])
    return figure


def legend(figure: Figure, methods: Sequence[str], title: str | None = None) -> None:
    """Put the methods' markers above all panels, and a title above them."""
    plain: dict[str, Any] = {"linestyle": "", "markeredgewidth": 0}
    handles = [matplotlib.lines.Line2D([], [], label=method, **plain, **STYLES[method]) for method in methods]
    made = figure.legend(
        handles=handles,
        loc="outside upper left",
        ncols=len(handles),
        frameon=False,
        handletextpad=0.1,
        title=title,
        alignment="left",
    )
    made.get_title().set_color(INK)


def shorten(text: str, letters: int = 30) -> str:
    """Cut out the middle of a name, a text's first line, that is longer than its place."""
    name, *more = text.split("\n")
    if len(name) > letters:
        tail = (letters - 1) // 2
        name = f"{name[: letters - 1 - tail]}…{name[len(name) - tail :]}"
    return "\n".join([name, *more])


def save(figure: Figure, path: Path) -> None:
    """Write a picture as SVG: the same bytes for the same figure.

    Raises:
        InputError: The file cannot be written.
    """
    matplotlib.rcParams["svg.hashsalt"] = path.stem
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="svg", metadata={"Date": None, "Creator": None})


def _draw(axes: Axes, panel: Panel, joined: bool, letters: int) -> None:
    methods = [method for method in METHODS if method in panel.series]
    step = min(0.03 if joined else 0.14, 0.7 / len(methods))
    for number, method in enumerate(methods):
        shift = (number - (len(methods) - 1) / 2) * step
        places = sorted(panel.series[method])
        numbers = [panel.series[method][place] for place in places]
        middle = [mean(values) for values in numbers]
        reach = [
            [m - min(v) for m, v in zip(middle, numbers, strict=True)],
            [max(v) - m for m, v in zip(middle, numbers, strict=True)],
        ]
        axes.errorbar(
            [place + shift for place in places],
            middle,
            yerr=reach,
            linestyle="-" if joined else "",
            linewidth=0.8,
            elinewidth=1.2,
            markeredgewidth=0,
            **STYLES[method],
        )
    axes.set_title(panel.title, fontsize="medium", color=INK, loc="left")
    axes.set_xticks(range(len(panel.ticks)), labels=[shorten(tick, letters) for tick in panel.ticks])
    axes.set_xlim(-0.5, len(panel.ticks) - 0.5)
    axes.tick_params(axis="x", length=0)
    axes.grid(axis="y")
    if not joined:
        for place in range(1, len(panel.ticks)):
            axes.axvline(place - 0.5, color=LINE, linewidth=0.6)
    axes.axhline(0, color=MUTED, linewidth=0.9)


def _scale(axes: Axes, values: Sequence[float]) -> None:
    axes.set_yscale("symlog", linthresh=_LINEAR_BELOW, linscale=0.5)
    low, high = min(0.0, *values), max(_LINEAR_BELOW, *values)
    axes.set_ylim(low * 1.5 if low < 0 else -0.02, high * 1.4)
    axes.yaxis.set_major_locator(FixedLocator([tick for tick in _TICKS if low * 1.5 <= tick <= high * 1.4]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
