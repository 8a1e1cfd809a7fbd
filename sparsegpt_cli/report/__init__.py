"""The HTML report of a run: one file that opens from disk, with its charts inside and nothing to fetch."""

from sparsegpt_cli.report.render import render_report

__all__ = ["render_report"]
