"""Writes the HTML pages of a run and of a comparison: one file, with its charts inside, that needs no network.

May import ``figures``, ``messages`` and the packages below.
"""

from sparsegpt_cli.report.render import render_comparison, render_report

__all__ = ["render_comparison", "render_report"]
