"""``run``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparsegpt_cli.framework import ConfigFile, Session, command
from sparsegpt_cli.terminal import Console
from sparsegpt_core.errors import InputError

__all__ = ["run"]


@command
def run(
    console: Console,
    context: typer.Context,
    config: ConfigFile = None,
    out: Annotated[
        Path | None, typer.Option(help="The folder to write to. Default: runs/NAME, after the configuration.")
    ] = None,
) -> None:
    """Everything that a configuration says, in its order; what is done and unchanged is not done again."""
    from sparsegpt_cli.run import FLOWS, resolve, run_stages
    from sparsegpt_core.torchrun import world_size

    given = context.ensure_object(Session).config
    if given is None:
        raise typer.BadParameter("give a YAML file", param_hint="CONFIG")
    if world_size() > 1:
        raise InputError(
            "run is one process", "Start it without torchrun; its stages can be started with it one by one."
        )
    folder = out or Path("runs") / given.path.stem
    stages = resolve(given, folder, console.seed, context)
    if not stages:
        raise InputError(f"{given.path} has no stage", f"Stages are {', '.join(FLOWS)}.")
    for name in given.sections.keys() - {"run", *FLOWS}:
        console.warn(f"{given.path}: {name} is no stage, its section is left out")
    outcome = run_stages(stages, folder, context, console)
    done = f"{len(outcome.ran)} stages done, {len(outcome.unchanged)} unchanged: {folder}"
    console.result({"out": str(folder), **outcome.to_json()}, [done])
    if outcome.failed:
        console.error(f"{outcome.failed} did not pass: the stages after it were not run")
        raise typer.Exit(1)
