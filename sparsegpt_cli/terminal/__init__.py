"""Prints on the terminal: messages, progress bars and tables.

May import ``figures``, ``messages`` and the packages below.
"""

from sparsegpt_cli.terminal.console import Console, logged_warnings, report_error
from sparsegpt_cli.terminal.streams import robust_streams
from sparsegpt_cli.terminal.sweep_summary import summary_table
from sparsegpt_cli.terminal.tables import (
    advice_lines,
    audit_table,
    doctor_table,
    explanation_table,
    interval,
    latency_table,
    layer_table,
    metrics_table,
    prediction_table,
    quality_tables,
    table,
)

__all__ = [
    "Console",
    "advice_lines",
    "audit_table",
    "doctor_table",
    "explanation_table",
    "interval",
    "latency_table",
    "layer_table",
    "logged_warnings",
    "metrics_table",
    "prediction_table",
    "quality_tables",
    "report_error",
    "robust_streams",
    "summary_table",
    "table",
]
