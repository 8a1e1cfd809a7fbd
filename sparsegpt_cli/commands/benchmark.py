"""``benchmark``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sparsegpt_cli import options as o
from sparsegpt_cli.framework import command
from sparsegpt_cli.options import BuildOptions, EngineOptions
from sparsegpt_cli.terminal import Console, accuracy_table, advice_lines, explanation_table, latency_table

__all__ = ["benchmark"]

_ENGINES, _BUILDING = EngineOptions(), BuildOptions()


@command
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
    channels: o.Channels = None,
    eval_samples: o.EvalSamples = 2000,
    batch_size: o.BatchSize = 64,
    runtime: Annotated[
        str, typer.Option(help="onnxruntime, tensorrt, or auto: TensorRT where a GPU and a backend are.")
    ] = "auto",
    batch: Annotated[
        list[int] | None,
        typer.Option(
            "--batch",
            "--latency-batch",
            min=1,
            help="Images per timed call; may be repeated, the first is the one that is explained and judged. "
            "Default: 8 as engines, else 1.",
        ),
    ] = None,
    rounds: Annotated[int, typer.Option(min=2, help="Rounds of interleaved timing.")] = 20,
    engines: EngineOptions = _ENGINES,
    building: BuildOptions = _BUILDING,
    max_drop: Annotated[
        float | None, typer.Option(help="Exit with 1 where top-1 falls by more than this many points.")
    ] = None,
    min_speedup: Annotated[float | None, typer.Option(help="Exit with 1 where the speed-up is below this.")] = None,
    out: Annotated[Path | None, typer.Option(help="A JSON file for the result, such as RUN/benchmark.json.")] = None,
) -> None:
    """Compare a dense with a sparse model, as engines or on ONNX Runtime: accuracy, latency interleaved, and why."""
    from deploy.benchmark import failed_gate
    from deploy.machine import find_runtime
    from sparsegpt_cli.jobs.benchmarking import BenchmarkSettings, benchmark_files
    from sparsegpt_cli.jobs.datasets import DataSource
    from sparsegpt_core.files import write_json

    if out:
        o.require_free(out, dense, sparse, data, eval_data)
    data_options = DataSource(data, data_root, eval_data, mean, std, image_size, channels)
    settings = BenchmarkSettings(eval_samples, batch_size, tuple(dict.fromkeys(batch or ())), rounds, console.seed)
    on_engines = engines.settings(building.settings())
    backend, why = find_runtime(runtime)
    console.say(f"runtime: {why if backend else f'ONNX Runtime, {why}'}")
    with console.progress() as progress:
        result = benchmark_files(dense, sparse, data_options, settings, progress, on_engines if backend else None)
    content = result.to_json()
    if out:
        write_json(out, content)
    for warning in result.warnings:
        console.warn(warning)
    timings = [content, *content["further_batches"]]
    lines: list[Any] = [
        accuracy_table(content["accuracy"]),
        *(latency_table(each, content["runtime"]) for each in timings),
    ]
    if result.explanation:
        lines += [explanation_table(result.explanation), *advice_lines(result.explanation.layers)]
    further = [timed.verdict for timed in result.timed[1:] if timed.verdict]
    console.result(content, [*lines, result.verdict, *further])
    reason = failed_gate(result, max_drop, min_speedup)
    if reason:
        console.error(reason)
        raise typer.Exit(1)
