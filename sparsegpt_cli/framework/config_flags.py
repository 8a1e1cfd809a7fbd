"""``--config`` of every command, and the CONFIG argument of ``run`` and ``sweep``.

The values of the file become click's ``default_map``. Types, ranges, repeatable and required flags therefore work as on
the command line, whose flags replace those of the file.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from sparsegpt_cli.framework.config import FOLDER, flags_of, load_config
from sparsegpt_cli.framework.session import Session
from sparsegpt_core.errors import InputError

__all__ = ["ConfigFile", "ConfigOption"]


def _use(context: typer.Context, path: Path | None) -> Path | None:
    """Make the file's values the defaults of the flags."""
    if path is None:
        return None
    session: Session = context.ensure_object(Session)
    if session.config is not None:
        raise InputError("two configurations are given", "Leave --config or CONFIG out.")
    session.config = load_config(path, context.find_root().command.commands, context)  # type: ignore[attr-defined]
    flags, texts = flags_of(context.command), session.config.for_command(context.command, context)
    context.default_map = {
        flags[key].name: partial(_refuse_folder, path, key) if FOLDER in str(text) else text
        for key, text in texts.items()
    }
    if "json" in texts:
        session.as_json |= flags["json"].process_value(context, texts["json"])
    return path


def _refuse_folder(path: Path, key: str) -> None:
    """Raise InputError. Click calls this default only if the command line does not give the flag."""
    raise InputError(f"{path}: {key} is in {FOLDER}, the folder of run", f"Give --{key} on the command line.")


ConfigFile = Annotated[
    Path | None,
    typer.Argument(
        callback=_use,
        is_eager=True,
        help="YAML file of flags. Flags on the command line replace them.",
        show_default=False,
    ),
]
"""The CONFIG argument of a command. The command need not read it: its values are the flags' defaults."""

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config", callback=_use, is_eager=True, help="YAML file of flags. Flags on the command line replace them."
    ),
]
