"""``run``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparsegpt_cli.framework import ConfigFile, Session, command
from sparsegpt_cli.messages import next_step
from sparsegpt_cli.terminal import Console
from sparsegpt_core.errors import InputError

__all__ = ["run"]


@command
def run(
    console: Console,
    context: typer.Context,
    config: ConfigFile = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write to.", show_default="runs/NAME for NAME.yaml")
    ] = None,
) -> None:
    """Run the stages of a configuration in their order.

    Stages that are done and whose options and files have not changed are not run again.
    """
    from sparsegpt_cli.run import STAGE_FILES, check_precision, resolve, run_stages
    from sparsegpt_core.torchrun import world_size

    given = context.ensure_object(Session).config
    if given is None:
        raise typer.BadParameter("no configuration is given", param_hint="CONFIG")
    if world_size() > 1:
        raise InputError(
            "run does not work under torchrun", "Start it without torchrun, or start single stages with torchrun."
        )
    folder = out or Path("runs") / given.path.stem
    stages = resolve(given, folder, console.seed, context)
    if not stages:
        raise InputError(f"{given.path} contains no stage", f"Stages are {', '.join(STAGE_FILES)}.")
    for name in given.sections.keys() - {"run", *STAGE_FILES}:
        console.warn(f"{given.path}: {name} is not a stage; its section is ignored")
    check_precision(stages)
    outcome = run_stages(stages, folder, context, console)
    done = f"{len(outcome.ran)} stages done, {len(outcome.unchanged)} unchanged: {folder}"
    lines = [done]
    if not outcome.failed:
        has_report = (folder / "prune.json").is_file() and "report" not in outcome.stages
        lines.append(next_step("report", folder) if has_report else next_step("run", given.path, "--out", folder))
    console.result({"out": str(folder), **outcome.to_json()}, lines)
    if outcome.failed:
        console.error(f"the check of {outcome.failed} failed; the stages after it were not run")
        raise typer.Exit(1)
