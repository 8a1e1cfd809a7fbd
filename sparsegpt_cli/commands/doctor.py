"""``doctor``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from sparsegpt_cli.framework import command
from sparsegpt_cli.messages import next_step
from sparsegpt_cli.terminal import Console, doctor_table

__all__ = ["doctor"]


@command
def doctor(
    console: Console,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 if a required library is missing.")] = False,
) -> None:
    """List what this machine has and what is missing.

    Shows for each missing library the command that installs it.
    """
    from deploy.machine import check_machine as run
    from deploy.machine import describe_environment

    checks = run()
    needed = [check.name for check in checks if not check.ok and not check.optional]
    console.result(
        {"checks": [asdict(check) for check in checks], "environment": describe_environment()},
        [
            doctor_table(checks),
            f"required and missing: {', '.join(needed)}" if needed else "nothing required is missing",
            "next: install what is missing, as the table says" if needed else next_step("demo"),
        ],
    )
    if strict and needed:
        raise typer.Exit(1)
