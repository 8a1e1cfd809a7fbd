"""The learning curve of a training, next to its checkpoint. The same history gives the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from calibration.recovery import ReconstructResult
from calibration.training import Epoch
from sparsegpt_cli.figures.style import ACCENT, MUTED, PAPER, ZERO, chart_style, name_rows
from sparsegpt_core.files import atomic_path

__all__ = ["curve_path", "draw_blocks", "draw_epochs"]

_SIZE_INCHES = (9.0, 3.4)


def curve_path(checkpoint: Path) -> Path:
    """Return the path of a training's picture: ``NAME.curve.svg`` next to its ``NAME.safetensors``.

    Example:
        >>> curve_path(Path("net.safetensors")).name
        'net.curve.svg'
    """
    return checkpoint.with_suffix(".curve.svg")


def draw_epochs(path: Path, history: Sequence[Epoch], dense_top1: float | None = None) -> None:
    """Draw training loss and validation top-1 against epochs.

    Args:
        path: The SVG file to write.
        history: At least one epoch.
        dense_top1: The dense network's validation top-1 in percent, for comparison.

    Raises:
        InputError: The file cannot be written.

    Example:
        >>> history = [Epoch(1, 0.9, 0.05, 80.0, 0.7, 1.5), Epoch(2, 0.8, 0.01, 82.0, 0.6, 1.5)]
        >>> draw_epochs(Path("net.curve.svg"), history, dense_top1=83.0)
    """
    with chart_style():
        figure = Figure(figsize=_SIZE_INCHES, layout="constrained")
        left, right = figure.subplots(1, 2)
        losses = [(each.epoch, each.loss) for each in history if each.loss is not None]
        left.plot([epoch for epoch, _ in losses], [loss for _, loss in losses], "o-", color=ACCENT, markersize=4)
        left.set_ylabel("training loss")
        _draw_top1(right, history, dense_top1)
        for axes in (left, right):
            axes.set_xlabel("epoch")
            axes.set_xlim(history[0].epoch - 0.5, history[-1].epoch + 0.5)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.grid()
        _save(figure, path)


def draw_blocks(path: Path, result: ReconstructResult) -> None:
    """Draw the error of each block before and after reconstruction, and the error of the whole network.

    Args:
        path: The SVG file to write.
        result: The blocks and their errors.

    Raises:
        InputError: The file cannot be written.

    Example:
        >>> draw_blocks(Path("net.curve.svg"), result)  # of reconstruct()  # doctest: +SKIP
    """
    with chart_style():
        figure = Figure(figsize=(_SIZE_INCHES[0], 1.4 + 0.25 * len(result.blocks)), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        name_rows(left, [block.name for block in result.blocks])
        rows = range(len(result.blocks))
        before, after = ([max(getattr(b, when), ZERO) for b in result.blocks] for when in ("before", "after"))
        left.plot(before, rows, "o", color=MUTED, markerfacecolor=PAPER, label="before")
        left.plot(after, rows, "o", color=ACCENT, label="after")
        left.set_xlabel("relative error of the block's outputs (log scale)")
        _log_scale(left, before + after)
        right.axvline(result.start.logit_error, color=MUTED, linestyle="--", linewidth=1, label="before all")
        right.plot([b.network.logit_error for b in result.blocks], rows, "o-", color=ACCENT, markersize=4)
        right.set_xlabel("of the network's outputs, with the blocks so far")
        right.set_xlim(left=0)
        right.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.2g}"))
        right.tick_params(axis="y", length=0, labelleft=False)
        for axes in (left, right):
            axes.grid(axis="x")
            _legend(axes)
        _save(figure, path)


def _draw_top1(axes: Axes, history: Sequence[Epoch], dense_top1: float | None) -> None:
    epochs, top1 = [each.epoch for each in history], [each.validation_top1 for each in history]
    axes.plot(epochs, top1, "o-", color=ACCENT, markersize=4)
    best = max(history, key=lambda each: each.quality)
    text = f"best: {best.validation_top1:.2f} %, epoch {best.epoch}"
    axes.plot(best.epoch, best.validation_top1, "o", color=ACCENT, markersize=8, markerfacecolor="none", label=text)
    if dense_top1 is not None:
        axes.axhline(dense_top1, color=MUTED, linestyle="--", linewidth=1, label=f"dense: {dense_top1:.2f} %")
    axes.set_ylabel("validation top-1, %")
    axes.margins(y=0.15)
    _legend(axes)


def _log_scale(axes: Axes, errors: Sequence[float]) -> None:
    axes.set_xscale("log")
    steps = (1.0, 2.0, 5.0) if max(errors) / min(errors) < 100 else (1.0,)
    axes.xaxis.set_major_locator(LogLocator(subs=steps))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.2g}"))


def _legend(axes: Axes) -> None:
    axes.legend(loc="lower left", bbox_to_anchor=(-0.01, 1), ncols=2, frameon=False, borderpad=0, handletextpad=0.3)


def _save(figure: Figure, path: Path) -> None:
    matplotlib.rcParams["svg.hashsalt"] = "curve"
    figure.set_facecolor(PAPER)
    nothing = dict.fromkeys(("Date", "Creator"))
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="svg", metadata=nothing)
