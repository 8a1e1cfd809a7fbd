"""``report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparsegpt_cli import options as o
from sparsegpt_cli.framework import command
from sparsegpt_cli.messages import next_step
from sparsegpt_cli.terminal import Console
from sparsegpt_core.errors import InputError

__all__ = ["report"]


@command
def report(
    console: Console,
    run: Annotated[Path, typer.Argument(help="Folder that prune-export wrote.", show_default=False)],
    other: Annotated[
        Path | None, typer.Argument(help="Second run of the same network, to compare.", show_default=False)
    ] = None,
    out: Annotated[Path | None, typer.Option(help="HTML file of the comparison. Default: comparison.html.")] = None,
    force: o.Force = False,
) -> None:
    """Write a report again, or compare two runs.

    The report then includes the engines and benchmarks that were added to the folder. The comparison of two runs has
    their results and settings side by side, and the errors of each layer.
    """
    from sparsegpt_cli.report import render_comparison, render_report

    if other is None:
        if out is not None:
            raise InputError("--out is for a comparison, and there is one run", "Give a second run, or no --out.")
        path = render_report(run)
    else:
        path = out or Path("comparison.html")
        o.require_suffix(path, ".html", force=force)
        render_comparison(run, other, path)
    engines = sorted(run.glob("*.plan"))
    following = ("triton-export", engines[0], "--out", "models") if engines else ("build", run / "sparse.fp16.onnx")
    console.result({"report": str(path)}, [f"report: {path}", next_step(*following)])
