"""The ``run`` command: stages in order, and which of them are done already.

May import ``options``, ``jobs``, ``framework`` and below.
"""

from sparsegpt_cli.run.runner import run_stages
from sparsegpt_cli.run.stages import FLOWS, resolve

__all__ = ["FLOWS", "resolve", "run_stages"]
