"""The charts of a pruning run: errors and sparsity of layers, accuracy, and sparsity against error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from sparsegpt_cli.figures import (
    ACCENT,
    INK,
    LINE,
    MUTED,
    PAPER,
    WIDTH,
    ZERO,
    chart_style,
    explain_dots,
    explain_rows,
    label,
    name_rows,
    svg,
)
from sparsegpt_cli.report.formats import percent, signed, significant

__all__ = ["Curve", "LayerPoint", "accuracy_chart", "layer_charts", "tradeoff_chart"]

_ROWS_PER_CHART = 40  # fit on a printed page


@dataclass(frozen=True)
class LayerPoint:
    """One row of the layer chart. None: not measured, or dense."""

    name: str
    """The layer's name."""
    sparsity: float | None
    """The fraction of zeros."""
    error: float | None
    """The relative error of the outputs."""
    reference_error: float | None
    """The error it is compared with: after magnitude pruning, or in another run."""
    row: str = ""
    """The id of the layer's row in a table; empty if there is none."""


def layer_charts(layers: Sequence[LayerPoint], name: str, reference: str = "magnitude") -> list[Markup]:
    """Draw the error of each layer, and its sparsity if that is known. Charts of 40 layers share one scale.

    Args:
        layers: In running order.
        name: Whose errors they are, for the legend.
        reference: Whose errors they are compared with.
    """
    errors = [e for layer in layers for e in (layer.error, layer.reference_error) if e is not None and e > ZERO]
    limits = (min(errors) / 1.5, max(errors) * 1.5) if errors else (0.01, 1.0)
    return [
        _layer_chart(layers[start : start + _ROWS_PER_CHART], (name, reference), limits, f"layers-{start}")
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
        explain_rows(axes, [f"{name}: {signed(v)} points ({signed(a)} … {signed(b)})" for name, v, a, b in rows])
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
        predicted, measured = ([(factor * x, y) for x, y in rows] for rows in (curve.predicted, curve.measured))
        left.plot(*zip(*predicted, strict=True), "o-", color=MUTED, markersize=3.5, linewidth=1)
        left.set_ylabel("images expected to change class, %" if curve.has_classes else "sum of the layers' errors")
        right.plot(*zip(*measured, strict=True), "o", color=MUTED, markerfacecolor=PAPER)
        right.plot(*measured[-1], "o", color=ACCENT)
        right.set_ylabel("images that changed class, %")
        for axes, points in ((left, predicted), (right, measured)):
            explain_dots(axes, points, [f"{label_text}: {x:.3g}; {axes.get_ylabel()}: {y:.3g}" for x, y in points])
            axes.set_ylim(bottom=0)
            axes.set_xlabel(label_text)
            axes.grid()
        return svg(figure, "tradeoff")


def _layer_chart(
    layers: Sequence[LayerPoint], names: tuple[str, str], limits: tuple[float, float], salt: str
) -> Markup:
    has_sparsity = any(layer.sparsity is not None for layer in layers)
    texts = [_explanation(layer, *names) for layer in layers]
    links = [f"#{layer.row}" if layer.row else "" for layer in layers]
    with chart_style():
        figure = Figure(figsize=(WIDTH, 0.95 + 0.19 * len(layers)))
        figure.set_layout_engine("constrained", wspace=0.04)
        widths = (3, 1) if has_sparsity else (1,)
        errors, *sparsity = figure.subplots(1, len(widths), sharey=True, width_ratios=widths, squeeze=False)[0]
        name_rows(errors, [layer.name for layer in layers], links)
        _draw_errors(errors, layers, names, limits)
        for axes in sparsity:
            _draw_sparsity(axes, layers)
        for axes in (errors, *sparsity):
            explain_rows(axes, texts, links)
        return svg(figure, salt)


def _explanation(layer: LayerPoint, name: str, reference: str) -> str:
    errors = [(name, layer.error), (reference, layer.reference_error)]
    shown = [f"{whose} {significant(error)}" for whose, error in errors if error is not None]
    if layer.sparsity:
        shown.append(f"{percent(layer.sparsity)} zeros")
    return f"{layer.name}: {', '.join(shown) or 'dense'}"


def _draw_errors(axes: Axes, layers: Sequence[LayerPoint], names: tuple[str, str], limits: tuple[float, float]) -> None:
    for y, layer in enumerate(layers):
        pair = [e for e in (layer.reference_error, layer.error) if e is not None and e > ZERO]
        axes.plot(pair, [y] * len(pair), color=LINE, linewidth=2, zorder=1)
        if not pair:
            text = "0" if layer.error is not None else "" if layer.sparsity else "dense"
            axes.annotate(text, (limits[0], y), (4, 0), textcoords="offset points", va="center_baseline")
    name, reference = map(label, names)
    _dots(axes, [layer.reference_error for layer in layers], reference, PAPER, MUTED)
    _dots(axes, [layer.error for layer in layers], name, ACCENT, ACCENT)
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
