"""Writes the HTML report of a run: one file, with its charts inside, that needs no network.

May import ``figures``, ``messages`` and the packages below.
"""

from sparsegpt_cli.report.render import render_report

__all__ = ["render_report"]
