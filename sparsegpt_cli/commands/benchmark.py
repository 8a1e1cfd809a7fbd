"""``benchmark``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparsegpt_cli import options as o
from sparsegpt_cli.console import Console
from sparsegpt_cli.tables import accuracy_table, latency_table

__all__ = ["benchmark"]


@o.command
def benchmark(
    console: Console,
    dense: Annotated[Path, typer.Argument(help="The dense .onnx file.", show_default=False)],
    sparse: Annotated[Path, typer.Argument(help="The sparse .onnx file.", show_default=False)],
    data: o.Data = "digits",
    data_root: o.DataRoot = None,
    eval_data: o.EvalData = None,
    mean: o.Mean = None,
    std: o.Std = None,
    image_size: o.ImageSize = None,
    eval_samples: o.EvalSamples = 2000,
    batch_size: o.BatchSize = 64,
    latency_batch: Annotated[int | None, typer.Option(min=1, help="Images per timed call. Default: 1.")] = None,
    rounds: Annotated[int, typer.Option(min=2, help="Rounds of interleaved timing.")] = 20,
    max_drop: Annotated[
        float | None, typer.Option(help="Exit with 1 where top-1 falls by more than this many points.")
    ] = None,
    min_speedup: Annotated[float | None, typer.Option(help="Exit with 1 where the speed-up is below this.")] = None,
    out: Annotated[Path | None, typer.Option(help="A JSON file for the result, such as RUN/benchmark.json.")] = None,
) -> None:
    """Compare a dense with a sparse model on ONNX Runtime: accuracy on real data, latency interleaved."""
    from deploy.compare import gate
    from sparsegpt_cli.benchmarking import BenchmarkSettings, benchmark_files
    from sparsegpt_cli.data import DataOptions
    from sparsegpt_core.artifacts import write_json

    options = DataOptions(data, data_root, eval_data, mean, std, image_size)
    settings = BenchmarkSettings(eval_samples, batch_size, latency_batch, rounds, console.seed)
    with console.progress() as progress:
        result = benchmark_files(dense, sparse, options, settings, progress)
    content = result.to_json()
    if out:
        write_json(out, content)
    console.result(content, [accuracy_table(content["accuracy"]), latency_table(content), result.verdict])
    reason = gate(result, max_drop, min_speedup)
    if reason:
        console.error(reason)
        raise typer.Exit(1)
