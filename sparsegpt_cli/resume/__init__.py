"""Keeps unfinished runs: the output folder, its lock, and the finished stages.

May import ``messages`` and the packages below.
"""

from sparsegpt_cli.resume.lock import locked, locked_file
from sparsegpt_cli.resume.run_folder import staged, write_manifest
from sparsegpt_cli.resume.stage_store import StageStore
from sparsegpt_cli.resume.unfinished_run import LAYERS, STAGES, open_unfinished_run

__all__ = ["LAYERS", "STAGES", "StageStore", "locked", "locked_file", "open_unfinished_run", "staged", "write_manifest"]
