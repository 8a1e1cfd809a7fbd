"""Results as tables for a terminal. Loads nothing heavy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from sparsegpt_core.text import printable

if TYPE_CHECKING:
    from deploy.explain import ExplainedLayer, Explanation
    from deploy.machine import Check
    from deploy.predict import EstimatedPrediction, PredictedLayer
    from export.audit import AuditResult

__all__ = [
    "accuracy_table",
    "advice_lines",
    "audit_table",
    "doctor_table",
    "explanation_table",
    "interval",
    "latency_table",
    "layer_table",
    "metrics_table",
    "outputs_table",
    "prediction_table",
    "quality_tables",
    "table",
]


def table(left: Sequence[str], right: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Make a plain table of left-aligned columns, followed by right-aligned ones.

    Args:
        left: Headings of the left-aligned columns, for text.
        right: Headings of the right-aligned columns, for numbers.
        rows: The cells of each row.

    Example:
        >>> from rich.console import Console
        >>> Console(width=40).print(table(["layer"], ["zeros"], [["conv1", "50 %"]]))
        layer  zeros
        conv1   50 %
    """
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in left:
        made.add_column(name, overflow="fold")
    for name in right:
        made.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        made.add_row(*(Text(printable(cell)) for cell in row))
    return made


def layer_table(layers: Sequence[dict[str, Any]]) -> Table:
    """Make a table of the layers of a pruning run, as ``prune --json`` prints them."""
    rows = [
        [
            layer["name"],
            layer["kind"],
            _shape(layer["shape"]),
            layer["status"],
            _code(layer["reason"]),
            f"{100 * layer['sparsity']:.1f} %",
            _scientific(layer["relative_error"]),
            _scientific(layer["magnitude_error"]),
        ]
        for layer in layers
    ]
    return table(["layer", "kind", "weight", "", "reason"], ["zeros", "output error", "by magnitude"], rows)


def outputs_table(outputs: dict[str, Any]) -> Table:
    """Make a table of the distance of each output of each version from the dense one, and of its channels."""
    rows = [
        [
            name,
            output,
            _scientific(error),
            *(_scientific(channels.get(output, {}).get(key)) for key in ("median", "worst")),
            str(outputs["samples"]),
        ]
        for name, errors in outputs["relative_errors"].items()
        for channels in [outputs.get("channel_errors", {}).get(name, {})]
        for output, error in errors.items()
    ]
    return table(["", "output"], ["relative error", "median channel", "worst channel", "images"], rows)


def quality_tables(content: dict[str, Any]) -> list[Table]:
    """Make the tables of a comparison: of accuracy or output errors, and of a metric's figures."""
    tables = {"accuracy": accuracy_table, "outputs": outputs_table, "metrics": metrics_table}
    return [make(content[key]) for key, make in tables.items() if content[key]]


def metrics_table(metrics: dict[str, Any]) -> Table:
    """Make a table of the metric's figures of each version, with their differences from the dense one."""
    rows = [
        [
            name,
            figure,
            f"{found['value']:.4g}",
            interval(found.get("difference"), ".3g"),
            "higher" if of["higher_is_better"] else "lower",
            str(of["samples"]),
        ]
        for figure, of in metrics.items()
        for name, found in of["versions"].items()
    ]
    return table(["", "metric"], ["value", "difference (95 %)", "better", "images"], rows)


def accuracy_table(accuracy: dict[str, Any]) -> Table:
    """Make a table of the accuracy of each version, with its difference from the dense one."""
    rows = [
        [
            name,
            _number(arm["top1"], ".2f"),
            _number(arm.get("top5"), ".2f"),
            interval(arm.get("difference")),
            _number(arm.get("disagreement"), ".2f"),
            _number(arm.get("kl"), ".2g"),
            str(arm["samples"]),
        ]
        for name, arm in accuracy.items()
        if isinstance(arm, dict) and "samples" in arm
    ]
    right = ["top-1 %", "top-5 %", "difference (95 %)", "disagrees %", "KL", "images"]
    return table(["model"], right, rows)


def latency_table(content: dict[str, Any], runtime: str) -> Table:
    """Make a table of the latency of each version. The heading names the runtime and the batch size."""
    rows = [
        [name, *(_number(arm[key], ".3f") for key in ("p50_ms", "p95_ms", "p99_ms")), str(arm["samples"])]
        for name, arm in content["latency"].items()
    ]
    heading = f"latency, batch {content['latency_regime']['batch']}, {runtime}"
    return table([heading], ["p50 ms", "p95 ms", "p99 ms", "calls"], rows)


def audit_table(result: AuditResult) -> Table:
    """Make a table of the weights of an ONNX file."""
    rows = [
        [
            layer.name,
            layer.op,
            _shape(layer.shape),
            layer.dtype or "-",
            "sparse" if layer.is_sparse else "dense",
            _code(layer.reason),
            "-" if layer.violations is None else str(layer.violations),
        ]
        for layer in result.layers
    ]
    return table(["layer", "op", "weight", "type", result.pattern, "reason"], ["groups broken"], rows)


def explanation_table(explanation: Explanation) -> Table:
    """Make a table of the layers of a sparse model and its engines."""
    rows = [
        [
            layer.name,
            layer.op,
            _shape(layer.shape),
            layer.dtype or "-",
            "sparse" if layer.is_sparse else "dense",
            "yes" if layer.eligible else "no",
            {True: "sparse", False: "dense", None: "unknown"}[layer.chosen],
            layer.tactic or "-",
            _code(layer.reason),
            str(layer.groups),
            _number(layer.time_b_ms, ".4f"),
            _number(layer.time_c_ms, ".4f"),
            _number(layer.gain, ".2f"),
        ]
        for layer in explanation.layers
    ]
    left = ["layer", "op", "weight", "type", explanation.pattern, "eligible", "kernel", "tactic", "reason"]
    return table(left, ["groups", "B ms", "C ms", "gain"], rows)


def prediction_table(prediction: EstimatedPrediction) -> Table:
    """Make a table of the estimated gain of each layer."""
    rows = [
        [
            layer.name,
            layer.op,
            _shape(layer.shape),
            "yes" if layer.eligible else "no",
            _code(layer.reason),
            layer.bound or "-",
            "-" if layer.share is None else f"{100 * layer.share:.1f} %",
            _number(layer.gain, ".2f"),
        ]
        for layer in prediction.layers
    ]
    return table(["layer", "op", "weight", "eligible", "reason", "bound"], ["time", "gain"], rows)


def advice_lines(layers: Iterable[ExplainedLayer | PredictedLayer]) -> list[str]:
    """Return a line for each reason code in a table: its number of layers and its meaning."""
    reasons = Counter(layer.reason for layer in layers if layer.reason is not None)
    return [f"{reason.value} ({count}): {reason.advice}" for reason, count in reasons.most_common()]


def doctor_table(checks: Sequence[Check]) -> Table:
    """Make a table of the libraries and devices of a machine."""
    rows = [
        [check.name, "ok" if check.ok else "missing", check.detail, "" if check.ok else check.fix] for check in checks
    ]
    return table(["", "", "", "how to install it"], [], rows)


def _shape(shape: Sequence[int] | None) -> str:
    return "-" if shape is None else "×".join(map(str, shape))


def _code(reason: Any) -> str:
    return "" if reason is None else str(getattr(reason, "value", reason))


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _scientific(value: float | None) -> str:
    return _number(value, ".1e")


def interval(difference: dict[str, float] | None, form: str = ".2f") -> str:
    """Format a difference with its 95 % confidence interval.

    Example:
        >>> interval({"value": -0.25, "low": -0.5, "high": 0.0})
        '-0.25 (-0.50 … +0.00)'
    """
    if difference is None:
        return "-"
    value, low, high = (f"{difference[key]:+{form}}" for key in ("value", "low", "high"))
    return f"{value} ({low} … {high})"
