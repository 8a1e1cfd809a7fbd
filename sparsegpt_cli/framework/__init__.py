"""Turns a function into a command with ``--json``, ``--quiet``, ``--seed`` and ``--config``.

May import ``terminal``, ``messages`` and the packages below.
"""

from sparsegpt_cli.framework.choices import choice
from sparsegpt_cli.framework.config import FOLDER, Config, Text, flags_of, load_config
from sparsegpt_cli.framework.config_flags import ConfigFile
from sparsegpt_cli.framework.decorator import command
from sparsegpt_cli.framework.errors import ClickException
from sparsegpt_cli.framework.panels import PANELS, PanelCommand, panel_of
from sparsegpt_cli.framework.session import Session

__all__ = [
    "FOLDER",
    "PANELS",
    "ClickException",
    "Config",
    "ConfigFile",
    "PanelCommand",
    "Session",
    "Text",
    "choice",
    "command",
    "flags_of",
    "load_config",
    "panel_of",
]
