"""The style of all charts, and learning curves.

May import ``calibration``, ``sparsegpt_core``.
"""

from sparsegpt_cli.figures.learning_curve import curve_path, draw_blocks, draw_epochs
from sparsegpt_cli.figures.style import (
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

__all__ = [
    "ACCENT",
    "INK",
    "LINE",
    "MUTED",
    "PAPER",
    "WIDTH",
    "ZERO",
    "chart_style",
    "curve_path",
    "draw_blocks",
    "draw_epochs",
    "explain_dots",
    "explain_rows",
    "label",
    "name_rows",
    "svg",
]
