"""Runs the stages of a configuration, and records which of them are done.

May import ``options``, ``jobs``, ``framework`` and below.
"""

from sparsegpt_cli.run.runner import run_stages
from sparsegpt_cli.run.stages import STAGE_FILES, check_precision, resolve

__all__ = ["STAGE_FILES", "check_precision", "resolve", "run_stages"]
