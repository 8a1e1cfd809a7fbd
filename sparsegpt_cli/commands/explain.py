"""``explain``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparsegpt_cli import options as o
from sparsegpt_cli.framework import command
from sparsegpt_cli.messages import next_step, with_flags
from sparsegpt_cli.terminal import Console, explanation_lines

__all__ = ["explain"]


@command
def explain(
    console: Console,
    model: Annotated[Path, typer.Argument(help="Sparse .onnx file.", show_default=False)],
    plan_b: Annotated[Path | None, typer.Option(help="Its engine built without sparse kernels.")] = None,
    plan_c: Annotated[Path | None, typer.Option(help="Its engine built with sparse kernels.")] = None,
    times: Annotated[
        Path | None, typer.Option(help="JSON file of benchmark --out, with the time of each layer.")
    ] = None,
    export_layers: Annotated[
        Path | None,
        typer.Option(help="Folder for the layers and their times, in files that NVIDIA's tools read; needs a GPU."),
    ] = None,
    force: o.Force = False,
    verbose: o.Verbose = False,
) -> None:
    """Show which layers use sparse kernels, and why not.

    Shows for each layer whether it can use sparse kernels, whether the engine does, and the gain.
    """
    from deploy.explain import explain_plans, exported_names
    from deploy.explain import export_layers as export

    plans = {arm: plan for arm, plan in (("B", plan_b), ("C", plan_c)) if plan}
    if export_layers:
        for name in (name for arm in plans for name in exported_names(arm)):
            o.require_free(export_layers / name, model, plan_b, plan_c, times, force=force)
    explanation, unknown = explain_plans(model, plan_b, plan_c, times)
    files, unmatched = export(plans, export_layers) if export_layers else ([], [])
    unknown = [with_flags(sentence) for sentence in (*unknown, *unmatched)]
    console.result(
        {**explanation.to_json(), "unknown": unknown, "files": [str(file) for file in files]},
        [
            *explanation_lines(explanation, verbose),
            explanation.verdict,
            *unknown,
            *(f"  {file}" for file in files),
            next_step("triton-export", plan_c, "--out", "models") if plan_c else next_step("build", model),
        ],
    )
