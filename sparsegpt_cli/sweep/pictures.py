"""Chooses the numbers of a sweep's tables that each picture shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

from matplotlib.figure import Figure

from sparsegpt_cli.figures import chart_style
from sparsegpt_cli.sweep.charts import Panel, panels_chart, save, shorten
from sparsegpt_cli.sweep.grid import slug
from sparsegpt_cli.sweep.layer_charts import heat_map, layer_chart
from sparsegpt_cli.sweep.methods import METHODS
from sparsegpt_core.patterns import NM, parse_pattern

__all__ = ["draw"]

Row = dict[str, Any]

_USUAL_SAMPLES = 256  # calibration images of pictures that do not compare their numbers
_KINDS = ("sparsity", "samples-", "training-", "layers-", "sensitivity-")


def draw(folder: Path, rows: Sequence[Row], layers: Sequence[Row]) -> list[Path]:
    """Write the pictures that the rows have numbers for, remove those of an earlier grid, and return the files.

    Args:
        folder: For ``sparsity.svg``, ``samples-CHECKPOINT.svg``, ``training-MODEL.svg``, ``layers-CHECKPOINT.svg``
            and ``sensitivity-CHECKPOINT.svg``.
        rows: One for each cell, as in ``results.csv``.
        layers: One for each layer of each cell, as in ``layers.csv``.

    Raises:
        InputError: A file cannot be written.
    """
    written = []
    with chart_style():
        for name, figure in _figures(rows, layers):
            written.append(folder / f"{name}.svg")
            save(figure, written[-1])
    for path in folder.glob("*.svg"):
        if path not in written and path.name.startswith(_KINDS):
            path.unlink()
    return written


def _figures(rows: Sequence[Row], layers: Sequence[Row]) -> Iterator[tuple[str, Figure]]:
    sizes = _values(rows, "samples")
    size = _USUAL_SAMPLES if _USUAL_SAMPLES in sizes else max(sizes, default=None)
    usual = [row for row in rows if row["samples"] in (None, size)]
    drawn = [] if size is None else [f"{size} calibration images"]
    if usual:
        yield "sparsity", _against_sparsity(usual, drawn)
    for name in _values(rows, "checkpoint"):
        if panels := _against_samples(_where(rows, checkpoint=name)):
            label = _loss_label(rows) if _metric(rows[0]) else "images, %"
            yield f"samples-{slug(name)}", panels_chart(panels, label, "calibration images", joined=True)
    for model in _values(rows, "model"):
        own = _where(usual, model=model)
        if len(_values(own, "checkpoint")) > 1:
            yield f"training-{slug(model)}", _against_training(own, drawn)
    pruned = [row for row in layers if row["samples"] in (None, size) and row["status"] == "pruned"]
    for name in _values(pruned, "checkpoint"):
        own = _where(pruned, checkpoint=name)
        first = _values(own, "pattern")[0]
        if errors := _errors(_where(own, pattern=first)):
            yield f"layers-{slug(name)}", layer_chart(errors, ", ".join([shorten(name), _pattern(first), *drawn]))
        if figure := _sensitivity(own, [shorten(name), *drawn]):
            yield f"sensitivity-{slug(name)}", figure


def _against_sparsity(rows: Sequence[Row], drawn: Sequence[str]) -> Figure:
    patterns = _by_sparsity(rows)
    ticks = [_pattern_tick(pattern) for pattern in patterns]
    panels = []
    for name in _values(rows, "checkpoint"):
        own = _where(rows, checkpoint=name)
        series = _series(own, lambda row: patterns.index(row["pattern"]))
        panels.append(Panel(_titled(shorten(name), own[0]), ticks, series))
    axis = "pattern (free: unstructured) and its fraction of zeros"
    return panels_chart(panels, _loss_label(rows), "; ".join([axis, *drawn]))


def _against_samples(rows: Sequence[Row]) -> list[Panel]:
    """Draw lost top-1, in which gains and losses cancel, and the images that changed class; or a metric's loss."""
    sizes = sorted(_values(rows, "samples"))
    shown = {"changed class": _disagreement}
    if metric := _metric(rows[0]):
        shown = {f"{metric.name} lost": _loss}
    elif rows[0]["difference"] is not None:
        shown = {"top-1 lost": _loss, **shown}
    panels = []
    for pattern, (name, number) in product(_values(rows, "pattern"), shown.items()):
        own = _where(rows, pattern=pattern)
        series = _series([row for row in own if row["samples"]], lambda row: sizes.index(row["samples"]), number)
        if not any(len(points) > 1 for points in series.values()):
            continue
        everywhere = range(len(sizes))
        whole = {row["method"]: {place: [number(row)] for place in everywhere} for row in own if not row["samples"]}
        title = f"{shorten(own[0]['checkpoint'])}, {_pattern(pattern)}: {name}"
        panels.append(Panel(title, [str(size) for size in sizes], whole | series))
    return panels


def _against_training(rows: Sequence[Row], drawn: Sequence[str]) -> Figure:
    first = {row["checkpoint"]: row for row in reversed(rows)}
    names = sorted(first, key=lambda name: _dense_value(first[name]) or 0.0)
    ticks = [_titled(name, first[name], "\n") for name in names]
    metric, panels = _metric(rows[0]), []
    measure = metric.name if metric else "top-1"
    for pattern in _by_sparsity(rows):
        own = _where(rows, pattern=pattern)
        series = _series(own, lambda row: names.index(row["checkpoint"]))
        panels.append(Panel(f"{shorten(own[0]['model'])}, {_pattern(pattern)}", ticks, series))
    return panels_chart(
        panels, _loss_label(rows), "; ".join([f"checkpoint and its dense {measure}", *drawn]), joined=True
    )


def _errors(rows: Sequence[Row]) -> dict[str, dict[str, list[float]]]:
    """Return every method's relative errors by layer; those of magnitude are on the inputs of the last other method."""
    series: dict[str, dict[str, list[float]]] = {}
    for method in (name for name in METHODS if name in _values(rows, "method")):
        for column, name in (("relative_error", method), ("magnitude_error", "magnitude")):
            errors: dict[str, list[float]] = {}
            for row in _where(rows, method=method):
                if row[column] is not None:
                    errors.setdefault(row["layer"], []).append(row[column])
            if errors:
                series[name] = errors
    return series


def _sensitivity(rows: Sequence[Row], title: Sequence[str]) -> Figure | None:
    """Draw layers against patterns for the first method that measures the error of each layer."""
    for method in ("sparsegpt", "balanced", "best"):
        own = [row for row in _where(rows, method=method) if row["relative_error"] is not None]
        if own:
            patterns = _by_sparsity(own)
            values = {
                layer: [_sensitivity_of(_where(rows_of_layer, pattern=pattern)) for pattern in patterns]
                for layer in _values(own, "layer")
                for rows_of_layer in [_where(own, layer=layer)]
            }
            return heat_map(values, [_pattern_tick(pattern) for pattern in patterns], ", ".join([*title, method]))
    return None


def _sensitivity_of(rows: Sequence[Row]) -> float | None:
    errors = [row["relative_error"] if row["sensitivity"] is None else row["sensitivity"] for row in rows]
    return mean(errors) if errors else None


def _series(
    rows: Sequence[Row], place: Callable[[Row], int], number: Callable[[Row], float] | None = None
) -> dict[str, dict[int, list[float]]]:
    """Return by method and place on the axis a number for each seed, by default the loss."""
    series: dict[str, dict[int, list[float]]] = {}
    for row in rows:
        series.setdefault(row["method"], {}).setdefault(place(row), []).append((number or _loss)(row))
    return series


@dataclass(frozen=True)
class _Metric:
    """The first figure of a row's metric."""

    name: str
    dense: float
    lost: float


def _metric(row: Row) -> _Metric | None:
    """Return the first figure of a metric, which stands in place of top-1; None without a metric."""
    for name, figure in (row.get("metrics") or {}).items():
        dense, sparse = (figure["versions"][version]["value"] for version in ("dense", "sparse"))
        return _Metric(name, dense, dense - sparse if figure["higher_is_better"] else sparse - dense)
    return None


def _loss(row: Row) -> float:
    if metric := _metric(row):
        return metric.lost
    return _disagreement(row) if row["difference"] is None else -float(row["difference"])


def _disagreement(row: Row) -> float:
    return float(row["disagreement"])


def _loss_label(rows: Sequence[Row]) -> str:
    if metric := _metric(rows[0]):
        return f"{metric.name} lost"
    return "images that changed class, %" if rows[0]["difference"] is None else "top-1 lost, points"


def _dense_value(row: Row) -> float | None:
    metric = _metric(row)
    return metric.dense if metric else row["dense_top1"]


def _titled(name: str, row: Row, separator: str = ", dense ") -> str:
    if metric := _metric(row):
        return f"{name}{separator}{metric.dense:.4g}"
    top1 = "" if row["dense_top1"] is None else f"{separator}{row['dense_top1']:.2f} %"
    return f"{name}{top1}"


def _pattern(text: str) -> str:
    pattern = parse_pattern(text)
    return text if isinstance(pattern, NM) else f"unstructured {100 * pattern.sparsity:g} %"


def _pattern_tick(text: str) -> str:
    """Return a short label: the pattern above its percentage of zeros."""
    pattern = parse_pattern(text)
    return f"{text if isinstance(pattern, NM) else 'free'}\n{100 * pattern.sparsity:g} %"


def _by_sparsity(rows: Sequence[Row]) -> list[str]:
    return sorted(_values(rows, "pattern"), key=lambda text: parse_pattern(text).sparsity)


def _values(rows: Sequence[Row], column: str) -> list[Any]:
    """Return the distinct values of a column in order of appearance, without None."""
    return [value for value in dict.fromkeys(row[column] for row in rows) if value is not None]


def _where(rows: Sequence[Row], **wanted: Any) -> list[Row]:
    return [row for row in rows if all(row[column] == value for column, value in wanted.items())]
