"""``build``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparsegpt_cli import options as o
from sparsegpt_cli.framework import choice, command
from sparsegpt_cli.messages import next_step
from sparsegpt_cli.terminal import Console

__all__ = ["build"]


@command
def build(
    console: Console,
    *,
    model: Annotated[Path, typer.Argument(help="An .onnx file.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="Plan to write.", show_default="the model's path with .plan")] = None,
    sparse: Annotated[bool, typer.Option(help="Let the builder use sparse kernels (SPARSE_WEIGHTS).")] = True,
    backend: Annotated[str, choice("auto", "tensorrt", "tensorrt-rtx", help="Library that builds.")] = "auto",
    compute_capability: Annotated[
        str | None,
        typer.Option(metavar="N.N", help="Compute capability of the target GPU, such as 8.6 (tensorrt-rtx only)."),
    ] = None,
    timing_cache: Annotated[Path | None, typer.Option(help="Timing cache to read and extend.")] = None,
    building: o.BuildOptions,
    force: o.Force = False,
) -> None:
    """Build a TensorRT engine from an ONNX file.

    Writes the plan and PLAN.json, which records how it was built.
    """
    from deploy.builder import build_engine as run

    settings = building.settings(
        sparse=sparse, backend=backend, compute_capability=compute_capability, timing_cache=timing_cache
    )
    plan = out or model.with_suffix(".plan")
    o.require_free(plan, model, timing_cache, force=force)
    if timing_cache:
        o.require_free(timing_cache, model, force=True)  # the build extends it
    with console.progress() as progress:
        result = run(model, plan, settings, progress)
    for warning in result.warnings:
        console.warn(warning)
    chosen = "unknown" if result.chosen_layers is None else result.chosen_layers
    following = next_step("triton-export", plan, "--out", "models")
    if result.backend == "tensorrt" and sparse:
        following = next_step("explain", model, "--plan-c", plan)
    elif (plan.parent / "prune.json").is_file():
        following = next_step("report", plan.parent)
    console.result(
        result.to_json(),
        [
            f"{result.plan}: {result.bytes / 1e6:.1f} MB by {result.backend} {result.backend_version} "
            f"in {result.seconds:.1f} s, SPARSE_WEIGHTS {'on' if result.sparse_flag else 'off'}",
            f"layers eligible for sparse kernels: {result.eligible_layers}, chosen: {chosen}",
            result.note,
            following,
        ],
    )
