"""Runs the stages of a configuration, and records which of them are done.

May import ``options``, ``jobs``, ``framework`` and below.
"""

from sparsegpt_cli.run.runner import run_stages
from sparsegpt_cli.run.stages import STAGE_FILES, resolve

__all__ = ["STAGE_FILES", "resolve", "run_stages"]
