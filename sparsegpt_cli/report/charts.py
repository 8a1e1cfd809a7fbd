"""The charts of a pruning run: errors and sparsity of layers, accuracy, and sparsity against error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from sparsegpt_cli.figures import ACCENT, INK, LINE, MUTED, PAPER, WIDTH, ZERO, chart_style, label, name_rows, svg

__all__ = ["Curve", "LayerPoint", "accuracy_chart", "layer_charts", "tradeoff_chart"]

_ROWS_PER_CHART = 40  # fit on a printed page


@dataclass(frozen=True)
class LayerPoint:
    """One row of the layer chart. None: not measured."""

    name: str
    """The layer's name."""
    sparsity: float | None
    """The fraction of zeros."""
    error: float | None
    """The relative error of the outputs."""
    magnitude_error: float | None
    """The same after magnitude pruning."""


def layer_charts(layers: Sequence[LayerPoint], method: str) -> list[Markup]:
    """Draw the error and the sparsity of each layer. Charts of 40 layers share one scale.

    Args:
        layers: In running order.
        method: The name of the pruning method, for the legend.
    """
    errors = [e for layer in layers for e in (layer.error, layer.magnitude_error) if e is not None and e > ZERO]
    limits = (min(errors) / 1.5, max(errors) * 1.5) if errors else (0.01, 1.0)
    return [
        _layer_chart(layers[start : start + _ROWS_PER_CHART], method, limits, f"layers-{start}")
        for start in range(0, len(layers), _ROWS_PER_CHART)
    ]


def accuracy_chart(rows: Sequence[tuple[str, float, float, float]]) -> Markup:
    """Draw the differences to the dense model with their intervals.

    Args:
        rows: (arm, difference, low, high), in percentage points.
    """
    with chart_style():
        figure = Figure(figsize=(WIDTH * 0.7, 0.75 + 0.32 * len(rows)), layout="constrained")
        axes = figure.subplots()
        name_rows(axes, [name for name, *_ in rows])
        axes.axvline(0, color=INK, linewidth=1)
        for y, (_, value, low, high) in enumerate(rows):
            axes.plot((low, high), (y, y), color=MUTED, linewidth=1.5, solid_capstyle="butt")
            axes.plot(value, y, "o", color=ACCENT if y == len(rows) - 1 else MUTED, markersize=6)
        axes.set_xlabel("top-1 accuracy against dense, percentage points (line: 95 % interval)")
        axes.margins(x=0.08)
        return svg(figure, "accuracy")


@dataclass(frozen=True)
class Curve:
    """What a network gains and loses with more and more layers left dense."""

    predicted: Sequence[tuple[float, float]]
    """(Gain, what the errors of the pruned layers let expect), with one more layer dense each time: the disagreement in
    percent, or else the error of the outputs."""
    measured: Sequence[tuple[float, float]]
    """(Gain, disagreement in percent) of the networks that were tried; the last one was chosen."""
    has_speedup: bool
    """Whether the gain is the estimated speed-up; else it is the sparsity, 0 to 1."""
    has_classes: bool
    """Whether a disagreement is predicted."""


def tradeoff_chart(curve: Curve) -> Markup:
    """Draw error and disagreement against the speed-up, or else the sparsity."""
    factor, label_text = (1, "estimated speed-up") if curve.has_speedup else (100, "weights that are zero, %")
    with chart_style():
        figure = Figure(figsize=(WIDTH, 2.6), layout="constrained")
        left, right = figure.subplots(1, 2, sharex=True)
        left.plot(*_columns(curve.predicted, factor), "o-", color=MUTED, markersize=3.5, linewidth=1)
        left.set_ylabel("images expected to change class, %" if curve.has_classes else "sum of the layers' errors")
        right.plot(*_columns(curve.measured, factor), "o", color=MUTED, markerfacecolor=PAPER)
        right.plot(*_columns(curve.measured[-1:], factor), "o", color=ACCENT)
        right.set_ylabel("images that changed class, %")
        for axes in (left, right):
            axes.set_ylim(bottom=0)
            axes.set_xlabel(label_text)
            axes.grid()
        return svg(figure, "tradeoff")


def _columns(points: Sequence[tuple[float, float]], factor: float) -> tuple[list[float], list[float]]:
    return [factor * x for x, _ in points], [y for _, y in points]


def _layer_chart(layers: Sequence[LayerPoint], method: str, limits: tuple[float, float], salt: str) -> Markup:
    with chart_style():
        figure = Figure(figsize=(WIDTH, 0.95 + 0.19 * len(layers)))
        figure.set_layout_engine("constrained", wspace=0.04)
        errors, sparsity = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1))
        name_rows(errors, [layer.name for layer in layers])
        _draw_errors(errors, layers, method, limits)
        _draw_sparsity(sparsity, layers)
        return svg(figure, salt)


def _draw_errors(axes: Axes, layers: Sequence[LayerPoint], method: str, limits: tuple[float, float]) -> None:
    for y, layer in enumerate(layers):
        pair = [e for e in (layer.magnitude_error, layer.error) if e is not None and e > ZERO]
        axes.plot(pair, [y] * len(pair), color=LINE, linewidth=2, zorder=1)
        if not pair:
            text = "dense" if not layer.sparsity else "" if layer.error is None else "0"
            axes.annotate(text, (limits[0], y), (4, 0), textcoords="offset points", va="center_baseline")
    _dots(axes, [layer.magnitude_error for layer in layers], "magnitude", PAPER, MUTED)
    _dots(axes, [layer.error for layer in layers], label(method), ACCENT, ACCENT)
    axes.set_xscale("log")
    axes.set_xlim(limits)
    steps = (1.0, 2.0, 5.0) if limits[1] / limits[0] < 300 else (1.0,)
    axes.xaxis.set_major_locator(LogLocator(subs=steps))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel("relative output error (log scale, lower is better)")
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
