"""Tables with a row for each layer: the ten worst, or all of them. Loads nothing heavy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from sparsegpt_cli.terminal.tables import number, scientific, table

if TYPE_CHECKING:
    from deploy.explain import Explanation
    from deploy.predict import EstimatedPrediction
    from export.audit import AuditResult

__all__ = ["audit_lines", "explanation_lines", "layer_lines", "prediction_lines"]

_SHOWN = 10
_WIDEST = 10_000

Column = tuple[str, Callable[[Any], str]]
"""A heading, and the text of a layer's cell."""


def layer_lines(layers: Sequence[dict[str, Any]], is_verbose: bool) -> list[str | Table]:
    """Return the layers of a pruning run, as ``prune --json`` prints them: those with the largest errors.

    Args:
        layers: The layers.
        is_verbose: Whether to show all layers and columns.
    """
    left: list[Column] = [
        ("layer", lambda layer: layer["name"]),
        ("weight", lambda layer: _shape(layer["shape"])),
    ]
    more: list[Column] = [
        ("kind", lambda layer: layer["kind"]),
        ("", lambda layer: layer["status"]),
        ("reason", lambda layer: _code(layer["reason"])),
    ]
    right: list[Column] = [
        ("zeros", lambda layer: f"{100 * layer['sparsity']:.1f} %"),
        ("output error", lambda layer: scientific(layer["relative_error"])),
        ("by magnitude", lambda layer: scientific(layer["magnitude_error"])),
    ]
    if is_verbose:
        return [_whole(layers, [*left, *more], right)]
    pruned = [layer for layer in layers if layer["status"] == "pruned"]
    worst = sorted(pruned, key=lambda layer: -(layer["relative_error"] or 0.0))
    dense = Counter(_code(layer["reason"]) for layer in layers if layer["status"] != "pruned")
    lines = _worst(worst, "the largest errors", left, right) if pruned else []
    if dense:
        reasons = ", ".join(f"{reason or 'no reason'} ({count})" for reason, count in dense.most_common())
        lines.append(f"{dense.total()} layers stay dense: {reasons}; --verbose lists them")
    return lines


def audit_lines(result: AuditResult, is_verbose: bool) -> list[str | Table]:
    """Return the weights of an ONNX file: those that do not obey the pattern first.

    Args:
        result: The audit.
        is_verbose: Whether to show all weights and columns, in the order of the graph.
    """
    left: list[Column] = [("layer", lambda layer: layer.name), ("weight", lambda layer: _shape(layer.shape))]
    more: list[Column] = [("op", lambda layer: layer.op), ("type", lambda layer: layer.dtype or "-")]
    last: list[Column] = [
        (result.pattern, lambda layer: "sparse" if layer.is_sparse else "dense"),
        ("reason", lambda layer: _code(layer.reason)),
    ]
    right: list[Column] = [("groups broken", lambda layer: number(layer.violations, "d"))]
    if is_verbose:
        return [_whole(result.layers, [*left, *more, *last], right)]
    worst = sorted(result.layers, key=lambda layer: (layer.is_sparse, layer.eligible, -(layer.violations or 0)))
    return _worst(worst, f"those that are not {result.pattern}", [*left, *last], right)


def explanation_lines(explanation: Explanation, is_verbose: bool) -> list[str | Table]:
    """Return the layers of a sparse model and its engines, those without a gain first, and what the reasons mean.

    Args:
        explanation: The explanation.
        is_verbose: Whether to show all layers and columns, in the order of the graph.
    """
    left: list[Column] = [("layer", lambda layer: layer.name), ("weight", lambda layer: _shape(layer.shape))]
    more: list[Column] = [
        ("op", lambda layer: layer.op),
        ("type", lambda layer: layer.dtype or "-"),
        (explanation.pattern, lambda layer: "sparse" if layer.is_sparse else "dense"),
        ("eligible", lambda layer: _yes(layer.eligible)),
        ("tactic", lambda layer: layer.tactic or "-"),
    ]
    last: list[Column] = [
        ("kernel", lambda layer: {True: "sparse", False: "dense", None: "unknown"}[layer.chosen]),
        ("reason", lambda layer: _code(layer.reason)),
    ]
    right: list[Column] = [
        ("C ms", lambda layer: number(layer.time_c_ms, ".4f")),
        ("gain", lambda layer: number(layer.gain, ".2f")),
    ]
    first: list[Column] = [
        ("groups", lambda layer: str(layer.groups)),
        ("B ms", lambda layer: number(layer.time_b_ms, ".4f")),
    ]
    layers = explanation.layers
    if is_verbose:
        return [_whole(layers, [*left, *more, *last], [*first, *right]), *_advice(layers)]
    worst = sorted(layers, key=lambda layer: (_gains(layer), -(layer.time_c_ms or 0.0)))
    return [*_worst(worst, "those without a gain", [*left, *last], right), *_advice(layers)]


def prediction_lines(prediction: EstimatedPrediction, is_verbose: bool) -> list[str | Table]:
    """Return the estimated gain of layers, those without a gain first, and what the reasons mean.

    Args:
        prediction: The estimate.
        is_verbose: Whether to show all layers and columns, in the order of the graph.
    """
    left: list[Column] = [("layer", lambda layer: layer.name), ("weight", lambda layer: _shape(layer.shape))]
    more: list[Column] = [("op", lambda layer: layer.op), ("eligible", lambda layer: _yes(layer.eligible))]
    last: list[Column] = [("reason", lambda layer: _code(layer.reason)), ("bound", lambda layer: layer.bound or "-")]
    right: list[Column] = [
        ("time", lambda layer: "-" if layer.share is None else f"{100 * layer.share:.1f} %"),
        ("gain", lambda layer: number(layer.gain, ".2f")),
    ]
    layers = prediction.layers
    if is_verbose:
        return [_whole(layers, [*left, *more, *last], right), *_advice(layers)]
    worst = sorted(layers, key=lambda layer: (_gains(layer), -(layer.share or 0.0)))
    return [*_worst(worst, "those without a gain", [*left, *last], right), *_advice(layers)]


def _worst(layers: Sequence[Any], order: str, left: Sequence[Column], right: Sequence[Column]) -> list[str | Table]:
    """Return a table of the first layers, and how many there are."""
    made = _table(layers[:_SHOWN], left, right)
    made.columns[0].no_wrap = False  # long names take two lines
    shown: list[str | Table] = [made]
    if len(layers) > _SHOWN:
        shown.append(f"{_SHOWN} of {len(layers)} layers, {order} first; --verbose shows all")
    return shown


def _whole(layers: Sequence[Any], left: Sequence[Column], right: Sequence[Column]) -> Table:
    """Return a table of all layers. A narrower terminal wraps its lines, which cuts nothing off."""
    made = _table(layers, left, right)
    wide = Console(width=_WIDEST)
    made.min_width = Measurement.get(wide, wide.options, made).maximum
    return made


def _table(layers: Sequence[Any], left: Sequence[Column], right: Sequence[Column]) -> Table:
    rows = [[cell(layer) for _, cell in (*left, *right)] for layer in layers]
    made = table([heading for heading, _ in left], [heading for heading, _ in right], rows)
    for column in made.columns:
        column.no_wrap = True
    return made


def _advice(layers: Sequence[Any]) -> list[str]:
    """Return a line for each reason code: its number of layers and its meaning."""
    reasons = Counter(layer.reason for layer in layers if layer.reason is not None)
    return [f"{reason.value} ({count}): {reason.advice}" for reason, count in reasons.most_common()]


def _gains(layer: Any) -> bool:
    return layer.gain is not None and layer.gain > 1


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _shape(shape: Sequence[int] | None) -> str:
    return "-" if shape is None else "×".join(map(str, shape))


def _code(reason: Any) -> str:
    return "" if reason is None else str(getattr(reason, "value", reason))
