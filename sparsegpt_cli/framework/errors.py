"""The error class of click, which Typer either includes or depends on."""

from __future__ import annotations

from typing import Any

import typer

__all__ = ["ClickException"]

ClickException: Any = typer.BadParameter.__mro__[2]
"""Any error of usage. The class is the same in every version of Typer; its module is not."""
