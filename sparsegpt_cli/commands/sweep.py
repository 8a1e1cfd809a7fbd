"""``sweep``."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from sparsegpt_cli import options as o
from sparsegpt_cli.framework import ConfigFile, choice, command
from sparsegpt_cli.messages import next_step
from sparsegpt_cli.terminal import Console
from sparsegpt_core.errors import InputError

__all__ = ["sweep"]

_METHODS = ("magnitude", "sparsegpt", "balanced")
_PATTERNS = ("2:4", "1:4")


@command
def sweep(
    console: Console,
    *,
    weights: Annotated[
        list[Path], typer.Option(help="Checkpoint of train or finetune, or an .onnx file; may be repeated.")
    ],
    out: Annotated[Path, typer.Option(help="Folder to write to. Finished results in it are not computed again.")],
    config: ConfigFile = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CODE",
            help="package.module:factory or FILE.py:factory that a checkpoint may name, which runs that code with the "
            "arguments in the checkpoint; may be repeated.",
        ),
    ] = None,
    data: o.DataOptions,
    eval_data: o.EvalData = None,
    metric: o.MetricName = None,
    method: Annotated[
        list[str] | None,
        choice(
            *("magnitude", "sparsegpt", "balanced", "best", "cnn-sparsegpt"),
            metavar="NAME",
            help="magnitude, sparsegpt (as published), balanced, best, or cnn-sparsegpt (the research project's, "
            "for comparison only); may be repeated.",
            show_default="magnitude, sparsegpt and balanced",
        ),
    ] = None,
    pattern: Annotated[
        list[str] | None,
        typer.Option(
            metavar="N:M|FRACTION",
            help="N:M, or a fraction of zeros (0.5, 50%); may be repeated.",
            show_default="2:4 and 1:4",
        ),
    ] = None,
    samples: Annotated[
        list[int] | None, typer.Option(min=1, help="Calibration images; may be repeated.", show_default="256")
    ] = None,
    seeds: Annotated[
        list[int] | None,
        typer.Option(min=0, help="Seed of the calibration images; may be repeated.", show_default="0"),
    ] = None,
    eval_samples: o.EvalSamples = 0,
    batch_size: o.BatchSize = 64,
    jobs: Annotated[int, typer.Option(min=1, help="Results computed at the same time, each in its own process.")] = 1,
    cluster: Annotated[
        str | None,
        typer.Option(
            help="Compute on other machines: tcp://HOST:PORT of a Dask scheduler, or package.module:factory or "
            "FILE.py:factory of a concurrent.futures executor (mpi4py.futures:MPIPoolExecutor), which runs that code."
        ),
    ] = None,
    device: o.Device = "auto",
    memory_limit: o.MemoryLimit = None,
) -> None:
    """Prune checkpoints in many ways and compare them.

    Writes CSV, Parquet and pictures. A sweep that was stopped resumes where it stopped.
    """
    del config  # its keys are the flags' defaults
    from sparsegpt_cli.options import parse_size
    from sparsegpt_cli.sweep import Evaluator, Grid, open_executor
    from sparsegpt_cli.sweep import sweep as run
    from sparsegpt_cli.terminal import summary_table
    from sparsegpt_core.execution import find_device

    grid = Grid(weights, method or _METHODS, pattern or _PATTERNS, samples or (256,), seeds or (0,), model or ())
    judge = Evaluator(data.source(eval_data), eval_samples, console.seed, batch_size, str(find_device(device)), metric)
    o.load_metric(metric, console)  # before any work
    limit = parse_size(memory_limit) if memory_limit else None
    if cluster and jobs > 1:
        raise InputError("--jobs counts processes on this machine; a cluster has its own workers", "Give --jobs 1.")
    with open_executor(cluster, console) if cluster else nullcontext() as executor:
        swept = run(grid, judge, out, console, jobs=jobs, memory_limit=limit, executor=executor)
    for warning in swept.warnings:
        console.warn(warning)
    total = len(swept.rows) + len(swept.failed)
    summary = f"{len(swept.rows)} of {total} cells: {out / 'results.csv'}, {out / 'pictures'}"
    best = next_step("prune-export", "--weights", weights[0], *data.flags(), "--out", weights[0].with_suffix(""))
    console.result({"out": str(out), **swept.to_json()}, [summary_table(swept.rows), summary, best])
    for cell in swept.failed:
        console.error(f"{cell['cell']}: {cell['error']}. {cell['hint']}".rstrip())
    if swept.failed:
        raise typer.Exit(1)
