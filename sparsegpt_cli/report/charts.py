"""The report's charts, as SVG that sits in the page and takes its colours from the page's style sheet."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

__all__ = ["LayerPoint", "accuracy_chart", "layer_charts", "tradeoff_chart"]

WIDTH = 10.0  # inches; 960 CSS pixels
ROWS = 40  # layers a chart: as many as fit on a printed page
LONGEST_LABEL = 40
ZERO = 1e-12  # an error below this is nought: a logarithmic axis cannot show it

INK, MUTED, LINE, ACCENT, PAPER = "#1c2127", "#5d6671", "#d9dde3", "#1f5fbf", "#fefefe"
_VARIABLES = {INK: "--ink", MUTED: "--muted", LINE: "--line", ACCENT: "--accent", PAPER: "--paper"}


@dataclass(frozen=True)
class LayerPoint:
    """One row of the layer chart; errors are relative, sparsity a fraction, None what was not measured."""

    name: str
    sparsity: float | None
    error: float | None
    magnitude_error: float | None


def layer_charts(layers: Sequence[LayerPoint], method: str) -> list[Markup]:
    """Draw error and sparsity of each layer, ``ROWS`` layers a chart, all on the same scale.

    Args:
        layers: In the network's order.
        method: The name of what made ``error``, for the legend.
    """
    errors = [e for layer in layers for e in (layer.error, layer.magnitude_error) if e is not None and e > ZERO]
    limits = (min(errors) / 1.5, max(errors) * 1.5) if errors else (0.01, 1.0)
    return [
        _layer_chart(layers[start : start + ROWS], method, limits, f"layers-{start}")
        for start in range(0, len(layers), ROWS)
    ]


def accuracy_chart(rows: Sequence[tuple[str, float, float, float]]) -> Markup:
    """Draw differences to the dense model with their intervals.

    Args:
        rows: (arm, difference, low, high), in percentage points.
    """
    with _style():
        figure = Figure(figsize=(WIDTH * 0.7, 0.75 + 0.32 * len(rows)), layout="constrained")
        axes = figure.subplots()
        _name_rows(axes, [name for name, *_ in rows])
        axes.axvline(0, color=INK, linewidth=1)
        for y, (_, value, low, high) in enumerate(rows):
            axes.plot((low, high), (y, y), color=MUTED, linewidth=1.5, solid_capstyle="butt")
            axes.plot(value, y, "o", color=ACCENT if y == len(rows) - 1 else MUTED, markersize=6)
        axes.set_xlabel("top-1 accuracy against dense, percentage points (line: 95 % interval)")
        axes.margins(x=0.08)
        return _svg(figure, "accuracy")


def tradeoff_chart(foretold: Sequence[tuple[float, float]], measured: Sequence[tuple[float, float]]) -> Markup:
    """Draw what leaving the most sensitive layers dense costs and gains.

    Args:
        foretold: (sparsity, sum of the pruned layers' sensitivities), with one more layer dense each time.
        measured: (sparsity, disagreement in percent) of the networks that were tried; the last one was kept.
    """
    with _style():
        figure = Figure(figsize=(WIDTH, 2.6), layout="constrained")
        left, right = figure.subplots(1, 2, sharex=True)
        left.plot(*_columns(foretold), "o-", color=MUTED, markersize=3.5, linewidth=1)
        left.set_ylabel("sum of the layers' errors")
        right.plot(*_columns(measured), "o", color=MUTED, markerfacecolor=PAPER)
        right.plot(*_columns(measured[-1:]), "o", color=ACCENT)
        right.set_ylabel("images of another class, %")
        for axes in (left, right):
            axes.set_ylim(bottom=0)
            axes.set_xlabel("weights that are zero, %")
            axes.grid()
        return _svg(figure, "tradeoff")


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [100 * x for x, _ in points], [y for _, y in points]


def _layer_chart(layers: Sequence[LayerPoint], method: str, limits: tuple[float, float], salt: str) -> Markup:
    with _style():
        figure = Figure(figsize=(WIDTH, 0.95 + 0.19 * len(layers)))
        figure.set_layout_engine("constrained", wspace=0.04)
        errors, sparsity = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1))
        _name_rows(errors, [layer.name for layer in layers])
        _draw_errors(errors, layers, method, limits)
        _draw_sparsity(sparsity, layers)
        return _svg(figure, salt)


def _draw_errors(axes: Axes, layers: Sequence[LayerPoint], method: str, limits: tuple[float, float]) -> None:
    for y, layer in enumerate(layers):
        pair = [e for e in (layer.magnitude_error, layer.error) if e is not None and e > ZERO]
        axes.plot(pair, [y] * len(pair), color=LINE, linewidth=2, zorder=1)
        if not pair:
            text = "dense" if not layer.sparsity else "" if layer.error is None else "0"
            axes.annotate(text, (limits[0], y), (4, 0), textcoords="offset points", va="center_baseline")
    _dots(axes, [layer.magnitude_error for layer in layers], "magnitude", PAPER, MUTED)
    _dots(axes, [layer.error for layer in layers], _label(method), ACCENT, ACCENT)
    axes.set_xscale("log")
    axes.set_xlim(limits)
    steps = (1.0, 2.0, 5.0) if limits[1] / limits[0] < 300 else (1.0,)
    axes.xaxis.set_major_locator(LogLocator(subs=steps))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel("relative output error (log scale, further left is better)")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower left", bbox_to_anchor=(-0.01, 1), ncols=2, frameon=False, borderpad=0, handletextpad=0.1)


def _dots(axes: Axes, errors: Sequence[float | None], label: str, face: str, edge: str) -> None:
    shown = [(e, y) for y, e in enumerate(errors) if e is not None and e > ZERO]
    if shown:
        x, y = zip(*shown, strict=True)
        axes.plot(x, y, "o", label=label, markersize=5.5, markerfacecolor=face, markeredgecolor=edge)


def _draw_sparsity(axes: Axes, layers: Sequence[LayerPoint]) -> None:
    axes.barh(
        range(len(layers)), [100 * (layer.sparsity or 0) for layer in layers], height=0.5, color=ACCENT, alpha=0.5
    )
    axes.set_xlim(0, 100)
    axes.xaxis.set_major_locator(FixedLocator([0, 25, 50, 75, 100]))
    axes.set_xlabel("weights that are zero, %")
    axes.tick_params(axis="y", length=0, labelleft=False)


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), labels=[_label(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.grid(axis="x")


def _label(name: str) -> str:
    """The end of a name that is too long, since there names differ."""
    return name if len(name) <= LONGEST_LABEL else "…" + name[1 - LONGEST_LABEL :]


@contextmanager
def _style() -> Iterator[None]:
    """Draw with matplotlib's own defaults and ours, whatever the user's matplotlibrc says."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        # The browser has its own fonts: what DejaVu lacks is not missing from the page.
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(
            {
                "svg.fonttype": "none",
                "text.parse_math": False,  # a $ in a layer's name is a $
                "font.size": 9,
                "text.color": MUTED,
                "axes.labelcolor": MUTED,
                "axes.edgecolor": LINE,
                "axes.axisbelow": True,
                "axes.spines.top": False,
                "axes.spines.right": False,
                "axes.spines.left": False,
                "xtick.color": LINE,
                "xtick.labelcolor": MUTED,
                "grid.color": LINE,
                "grid.linewidth": 0.6,
            }
        )
        yield


def _svg(figure: Figure, salt: str) -> Markup:
    """Return the ``<svg>`` element: the same bytes for the same figure, identifiers of its own."""
    matplotlib.rcParams["svg.hashsalt"] = salt
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r'(<g) id="[\w.]+"', r"\1", text)  # figure_1, axes_1: the same in every chart, and used by none
    text = re.sub(r"(fill|stroke): (#[0-9a-f]{6})", lambda m: f"{m[1]}: {_variable(m[2])}", text)
    return Markup(text)  # matplotlib escapes the text it writes


def _variable(colour: str) -> str:
    return f"var({_VARIABLES[colour]})" if colour in _VARIABLES else colour
