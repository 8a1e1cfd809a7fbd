"""``demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparsegpt_cli.framework import command
from sparsegpt_cli.messages import next_step
from sparsegpt_cli.options import Force, OutFolder, require_free
from sparsegpt_cli.terminal import Console, interval, table

__all__ = ["demo"]


@command
def demo(
    console: Console,
    out: OutFolder = Path("demo"),
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training images.")] = 8,
    force: Force = False,
) -> None:
    """Run the whole workflow on handwritten digits.

    Trains, prunes, exports, verifies, builds, compares and reports, in a minute or two.
    """
    from sparsegpt_cli.jobs.demonstration import run_demo
    from sparsegpt_cli.jobs.pipeline import RUN_FILES

    for name in RUN_FILES:
        require_free(out / name, force=force)

    content = run_demo(out, epochs, console, console.seed)
    for row in content["rows"]:
        row["difference"] = interval(row["difference"])
    rows = [
        [row[key] for key in ("model", "top1", "difference", "sparse", "onnx", "engine")] for row in content["rows"]
    ]
    console.result(
        content,
        [
            table(["model"], ["top-1 %", "difference (95 %)", "2:4 layers", "ONNX", "FP16 engine, 8.6"], rows),
            f"top-1 on {content['samples']} held-out digits, in ONNX Runtime",
            *content["notes"],
            f"report: {content['report']}",
            next_step("prune-export", "--help"),
        ],
    )
