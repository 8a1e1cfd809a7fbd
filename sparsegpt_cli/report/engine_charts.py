"""The charts of a benchmark on engines: latencies, speed-ups, and the distribution of latencies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sparsegpt_cli.figures import ACCENT, INK, LINE, MUTED, PAPER, WIDTH, chart_style, explain_rows, name_rows, svg
from sparsegpt_cli.report.formats import fixed

__all__ = ["ArmTimes", "Gain", "arms_chart", "distribution_chart"]

_BINS = 60
_MAX_BAR_HEIGHT = 0.8  # of the distance between two rows


@dataclass(frozen=True)
class ArmTimes:
    """One arm's latencies in milliseconds."""

    name: str
    """The arm's name."""
    median: float
    """Over all timed calls."""
    p95: float | None = None
    """The 95th percentile."""
    p99: float | None = None
    """The 99th percentile."""
    interval: tuple[float, float] | None = None
    """The 95 % interval of the median; None if it is unknown."""
    samples: tuple[float, ...] = ()
    """Every timed call."""
    engines: tuple[float, ...] = ()
    """The median of each engine that was built."""


@dataclass(frozen=True)
class Gain:
    """A speed-up and its 95 % interval."""

    name: str
    """The arms that are compared."""
    ratio: float
    """2 is twice as fast."""
    low: float
    """The lower end of the interval."""
    high: float
    """The upper end of the interval."""


def arms_chart(arms: Sequence[ArmTimes], gains: Sequence[Gain], noise: float | None) -> Markup:
    """Draw each arm's median, 95th and 99th percentile, and the speed-ups.

    Args:
        arms: At least one. The last is the sparse engine.
        gains: The speed-ups between them.
        noise: The relative difference of equal engines; drawn as a band around 1.
    """
    with chart_style():
        figure = Figure(figsize=(WIDTH, 0.75 + 0.36 * max(len(arms), len(gains))))
        figure.set_layout_engine("constrained", wspace=0.04)
        left, *right = figure.subplots(1, 2 if gains else 1, width_ratios=(3, 2) if gains else None, squeeze=False)[0]
        _draw_arms(left, arms)
        for axes in right:
            _draw_gains(axes, gains, noise)
        return svg(figure, "arms")


def distribution_chart(arms: Sequence[ArmTimes]) -> Markup:
    """Draw the distribution of each arm's latencies on one scale, up to the slowest arm's 99th percentile.

    Args:
        arms: At least one, each with samples. The last is the sparse engine.
    """
    samples = [np.array(arm.samples) for arm in arms]
    start, end = (float(edge) for edge in (min(map(np.min, samples)), max(np.percentile(s, 99) for s in samples)))
    start, end = (start, end) if end > start else (start * 0.95, start * 1.05 or 1.0)
    counts = [np.histogram(s, _BINS, (start, end))[0] / len(s) for s in samples]
    tallest = max(map(np.max, counts))
    with chart_style():
        figure = Figure(figsize=(WIDTH, 0.75 + 0.62 * len(arms)), layout="constrained")
        axes = figure.subplots()
        name_rows(axes, [arm.name for arm in arms])
        axes.set_ylim(len(arms) - 0.75, -1)
        edges = np.linspace(start, end, _BINS + 1)
        for y, (arm, taken, share) in enumerate(zip(arms, samples, counts, strict=True)):
            colour = _colour(y, arms)
            tops = y - _MAX_BAR_HEIGHT * share / tallest
            axes.stairs(tops, edges, baseline=y, fill=True, color=colour, alpha=0.35)
            axes.stairs(tops, edges, baseline=y, color=colour, linewidth=1)
            axes.plot(arm.engines, [y + 0.12] * len(arm.engines), "^", color=colour, markersize=4, clip_on=False)
            if beyond := int((taken > end).sum()):
                axes.annotate(f"{beyond} slower", (end, y), (5, 0), textcoords="offset points", annotation_clip=False)
        explain_rows(axes, [f"{arm.name}: {len(arm.samples)} calls, {_milliseconds(arm)}" for arm in arms])
        axes.set_xlabel("latency of every timed call, ms (triangle: median of one of the engines built)")
        return svg(figure, "distributions")


def _draw_arms(axes: Axes, arms: Sequence[ArmTimes]) -> None:
    name_rows(axes, [arm.name for arm in arms])
    for y, arm in enumerate(arms):
        colour = _colour(y, arms)
        tails = [value for value in (arm.p95, arm.p99) if value is not None]
        axes.plot([arm.median, *tails], [y] * (1 + len(tails)), color=LINE, linewidth=1.5, zorder=1)
        for value, height in zip(tails, (6, 11), strict=False):
            axes.plot(value, y, "|", color=colour, markersize=height)
        if arm.interval:
            axes.plot(arm.interval, (y, y), color=colour, linewidth=4, alpha=0.5, solid_capstyle="butt")
        axes.plot(arm.median, y, "o", color=colour, markersize=6)
        axes.annotate(f"{arm.median:.3f}", (arm.median, y), (0, 7), textcoords="offset points", ha="center", color=INK)
    values = list(chain.from_iterable((arm.median, arm.p95 or arm.median, arm.p99 or arm.median) for arm in arms))
    if len(set(values)) > 1:
        axes.margins(x=0.08)
    axes.set_ylim(len(arms) - 0.6, -0.8)
    explain_rows(axes, [f"{arm.name}: {_milliseconds(arm)}" for arm in arms])
    axes.set_xlabel("ms (dot: median, bar: its 95 % interval, short tick: 95th, long tick: 99th percentile)")


def _draw_gains(axes: Axes, gains: Sequence[Gain], noise: float | None) -> None:
    name_rows(axes, [gain.name for gain in gains])
    axes.axvline(1, color=INK, linewidth=1)
    if noise:
        axes.axvspan(1 / (1 + noise), 1 + noise, color=LINE, alpha=0.7, linewidth=0)
    for y, gain in enumerate(gains):
        axes.plot((gain.low, gain.high), (y, y), color=MUTED, linewidth=1.5, solid_capstyle="butt")
        axes.plot(gain.ratio, y, "o", color=ACCENT, markeredgecolor=PAPER, markersize=7)
        axes.annotate(f"{gain.ratio:.2f}×", (gain.ratio, y), (0, 7), textcoords="offset points", ha="center", color=INK)
    axes.margins(x=0.12)
    axes.set_ylim(len(gains) - 0.5, -0.8)
    explain_rows(axes, [f"{g.name}: {fixed(g.ratio, 3)}× ({fixed(g.low, 3)} … {fixed(g.high, 3)})" for g in gains])
    axes.set_xlabel("speed-up (line: 95 % interval, band: noise)")


def _milliseconds(arm: ArmTimes) -> str:
    shown = [f"median {fixed(arm.median, 3)} ms"]
    if arm.interval:
        low, high = arm.interval
        shown[0] += f" ({fixed(low, 3)} … {fixed(high, 3)})"
    shown += [f"{rank} {fixed(ms, 3)} ms" for rank, ms in (("95th", arm.p95), ("99th", arm.p99)) if ms is not None]
    return ", ".join(shown)


def _colour(y: int, arms: Sequence[ArmTimes]) -> str:
    return ACCENT if y == len(arms) - 1 else MUTED
