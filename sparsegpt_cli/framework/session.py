"""What a command shares with whoever started it: click's ``obj``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from sparsegpt_cli.terminal import Console

if TYPE_CHECKING:
    from sparsegpt_cli.framework.config import Config

__all__ = ["ClickException", "Session"]

# Typer brings its own copy of click or needs the original, by version; the class is the same in both.
ClickException: Any = typer.BadParameter.__mro__[2]


@dataclass
class Session:
    """One start of a command."""

    as_json: bool = False
    """Whether errors are told as JSON too; a configuration can ask for it as well as the command line."""
    console: Callable[[bool, bool, int], Console] = Console
    """Makes the command's console from ``--json``, ``--quiet`` and ``--seed``."""
    config: Config | None = None
    """The configuration that the command was given."""
