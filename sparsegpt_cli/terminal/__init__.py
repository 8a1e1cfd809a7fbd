"""Prints on the terminal: messages, progress bars and tables.

May import ``figures``, ``messages`` and the packages below.
"""

from sparsegpt_cli.terminal.console import Console, logged_warnings, report_error
from sparsegpt_cli.terminal.layer_tables import audit_lines, explanation_lines, layer_lines, prediction_lines
from sparsegpt_cli.terminal.streams import robust_streams
from sparsegpt_cli.terminal.sweep_summary import summary_table
from sparsegpt_cli.terminal.tables import (
    doctor_table,
    interval,
    latency_table,
    metrics_table,
    quality_tables,
    table,
)

__all__ = [
    "Console",
    "audit_lines",
    "doctor_table",
    "explanation_lines",
    "interval",
    "latency_table",
    "layer_lines",
    "logged_warnings",
    "metrics_table",
    "prediction_lines",
    "quality_tables",
    "report_error",
    "robust_streams",
    "summary_table",
    "table",
]
