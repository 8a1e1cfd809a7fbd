"""``report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparsegpt_cli.framework import command
from sparsegpt_cli.messages import next_step
from sparsegpt_cli.terminal import Console

__all__ = ["report"]


@command
def report(
    console: Console,
    run: Annotated[Path, typer.Argument(help="Folder that prune-export wrote.", show_default=False)],
) -> None:
    """Write the HTML report of a run again.

    The report then includes the engines and benchmarks that were added to the folder.
    """
    from sparsegpt_cli.report import render_report

    path = render_report(run)
    engines = sorted(run.glob("*.plan"))
    following = ("triton-export", engines[0], "--out", "models") if engines else ("build", run / "sparse.fp16.onnx")
    console.result({"report": str(path)}, [f"report: {path}", next_step(*following)])
