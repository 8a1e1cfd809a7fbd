"""Charts of one network's layers: errors by method, and sensitivity to each pattern."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean

import matplotlib
import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from sparsegpt_cli.figures import INK, LINE, name_rows
from sparsegpt_cli.sweep.charts import STYLES, WIDTH, legend
from sparsegpt_cli.sweep.methods import METHODS

__all__ = ["heat_map", "layer_chart"]

_MAX_ROWS = 60
_ROW_HEIGHT, _FRAME_HEIGHT = 0.19, 1.1  # inches
_COLUMN_WIDTH, _NAMES_WIDTH = 0.72, 4.0  # inches
_BLACK_TEXT_FROM = 0.42  # of cividis: lighter colours contrast more with black than with white
_MIN_DRAWN_ERROR = 1e-9  # smaller errors are drawn here, since a logarithmic axis has no zero


def layer_chart(errors: Mapping[str, Mapping[str, Sequence[float]]], title: str) -> Figure:
    """Draw the relative error of each layer by method. Points are means over the seeds, lines show the range.

    Args:
        errors: By method and layer the errors of all seeds.
        title: The network, the pattern and the calibration.
    """
    worst = {
        name: max(mean(layers[name]) for layers in errors.values() if name in layers)
        for name in dict.fromkeys(name for layers in errors.values() for name in layers)
    }
    names, remark = _rows_to_draw(worst)
    figure = Figure(figsize=(WIDTH, _FRAME_HEIGHT + _ROW_HEIGHT * len(names)), layout="constrained")
    axes = figure.subplots()
    name_rows(axes, names)
    for method in (method for method in METHODS if method in errors):
        places = [y for y, name in enumerate(names) if name in errors[method]]
        found = [[max(_MIN_DRAWN_ERROR, error) for error in errors[method][names[y]]] for y in places]
        axes.hlines(places, list(map(min, found)), list(map(max, found)), color=STYLES[method]["color"], linewidth=1.5)
        axes.plot(list(map(mean, found)), places, linestyle="", markeredgewidth=0, **STYLES[method])
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(numticks=10))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel(f"relative output error (logarithmic, further left is better){remark}")
    legend(figure, [method for method in METHODS if method in errors], title)
    return figure


def heat_map(values: Mapping[str, Sequence[float | None]], columns: Sequence[str], title: str) -> Figure:
    """Draw the error of each layer's outputs as colours and numbers.

    Args:
        values: By layer a relative error for each column; None if it was not measured.
        columns: The column labels.
        title: The network, the calibration and the method.
    """
    worst = {name: max((v for v in row if v is not None), default=0.0) for name, row in values.items()}
    names, remark = _rows_to_draw(worst)
    rows = [[np.nan if v is None else max(_MIN_DRAWN_ERROR, v) for v in values[name]] for name in names]
    table = np.array(rows, dtype=float)
    width = min(WIDTH, _NAMES_WIDTH + _COLUMN_WIDTH * len(columns))
    figure = Figure(figsize=(width, _FRAME_HEIGHT + _ROW_HEIGHT * len(names)), layout="constrained")
    axes = figure.subplots()
    colours = matplotlib.colormaps["cividis"].with_extremes(bad=LINE)
    norm = LogNorm(float(np.nanmin(table)), max(float(np.nanmax(table)), 2 * float(np.nanmin(table))))
    axes.imshow(table, cmap=colours, norm=norm, aspect="auto")
    for (row, column), value in np.ndenumerate(table):
        if not np.isnan(value):
            ink = "black" if norm(value) > _BLACK_TEXT_FROM else "white"
            axes.text(column, row, f"{value:.2g}", color=ink, ha="center", va="center_baseline", fontsize="small")
    name_rows(axes, names)
    axes.grid(False)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xticks(range(len(columns)), labels=columns)
    axes.tick_params(axis="x", length=0, top=False, labeltop=True, labelbottom=False)
    axes.set_xlabel(f"relative error of the layer's outputs{remark}")
    figure.suptitle(title, x=0.01, ha="left", fontsize="medium", color=INK)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure


def _rows_to_draw(worst: Mapping[str, float]) -> tuple[list[str], str]:
    """Return the layers with the largest errors in running order, and a remark if some are left out."""
    if len(worst) <= _MAX_ROWS:
        return list(worst), ""
    shown = set(sorted(worst, key=lambda name: worst[name], reverse=True)[:_MAX_ROWS])
    remark = f"; the {_MAX_ROWS} of {len(worst)} layers with the largest errors"
    return [name for name in worst if name in shown], remark
