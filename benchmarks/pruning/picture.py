"""A chart of the time by images and by layers."""

from __future__ import annotations

from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.pruning.records import Records
from sparsegpt_core.files import atomic_path

__all__ = ["draw"]


def draw(records: Records, path: Path) -> None:
    """Write the chart as PNG."""
    matplotlib.use("agg")
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    _against_images(left, records)
    _against_layers(right, records)
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120, metadata={"Software": None})


def _against_images(axes: Axes, records: Records) -> None:
    model = records.widest()
    images = records.images(model)
    axes.plot(images, [records.seconds(model, "default", count) for count in images], "o-", label="default")
    axes.plot(images, [records.forward(model, count) for count in images], "s--", label="dense forward")
    axes.set(title=model, xlabel="calibration images", ylabel="seconds", xlim=(0, None), ylim=(0, None))


def _against_layers(axes: Axes, records: Records) -> None:
    images, layers = records.depths()
    counts = list(layers.values())
    for arm in ("straightforward", "default", "plain"):
        axes.plot(counts, [records.seconds(model, arm, images) for model in layers], "o-", label=arm)
    axes.plot(counts, [records.forward(model, images) for model in layers], "s--", label="dense forward")
    axes.set(title=f"{images} images: {', '.join(layers)}", xlabel="layers pruned", yscale="log")
