"""The state that a command shares with its caller: click's ``obj``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sparsegpt_cli.framework.config import Config
from sparsegpt_cli.terminal import Console

__all__ = ["Session"]


@dataclass
class Session:
    """One call of a command."""

    as_json: bool = False
    """Whether errors are also printed as JSON. The command line or a configuration may ask for it."""
    console: Callable[[bool, bool, int], Console] = Console
    """Makes the command's console from ``--json``, ``--quiet`` and ``--seed``."""
    config: Config | None = None
    """The configuration that the command was given."""
