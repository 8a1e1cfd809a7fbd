"""Turns a function into a command: ``--json``, ``--quiet``, ``--seed`` and ``--config``.

May import ``terminal``, ``messages`` and the packages below.
"""

from sparsegpt_cli.framework.config import FOLDER, Config, ConfigFile, Text, flags_of
from sparsegpt_cli.framework.decorator import command
from sparsegpt_cli.framework.session import ClickException, Session

__all__ = ["FOLDER", "ClickException", "Config", "ConfigFile", "Session", "Text", "command", "flags_of"]
