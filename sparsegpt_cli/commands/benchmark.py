"""``benchmark``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sparsegpt_cli import options as o
from sparsegpt_cli.framework import choice, command
from sparsegpt_cli.messages import next_step
from sparsegpt_cli.terminal import Console, explanation_lines, latency_table, quality_tables

__all__ = ["benchmark"]


@command
def benchmark(
    console: Console,
    *,
    dense: Annotated[Path, typer.Argument(help="Dense .onnx file.", show_default=False)],
    sparse: Annotated[Path, typer.Argument(help="Sparse .onnx file.", show_default=False)],
    data: o.DataOptions,
    eval_data: o.EvalData = None,
    eval_samples: o.EvalSamples = 2000,
    batch_size: o.BatchSize = 64,
    runtime: Annotated[
        str,
        choice(
            *("auto", "tensorrt", "onnxruntime", "onnxruntime-tensorrt"),
            help="onnxruntime: on the CPU, or with its TensorRT provider; auto: tensorrt if there are a GPU and a "
            "backend, else onnxruntime.",
        ),
    ] = "auto",
    engine_batch: Annotated[
        list[int] | None,
        typer.Option(
            "--engine-batch",
            "--batch",
            min=1,
            help="Images in one inference; may be repeated; the first is explained and judged.",
            show_default="1 with onnxruntime, else 8",
        ),
    ] = None,
    timing: o.TimingOptions,
    engines: o.EngineOptions,
    building: o.BuildOptions,
    quality: o.QualityOptions,
    min_speedup: Annotated[float | None, typer.Option(help="Exit with 1 if the speed-up is below this.")] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file for the result, such as RUN/benchmark.json.")] = None,
    force: o.Force = False,
    verbose: o.Verbose = False,
) -> None:
    """Compare the accuracy and latency of two models.

    The models run as TensorRT engines, whose layers are explained, or on ONNX Runtime: on the CPU, or on the engines
    that its TensorRT provider builds.
    """
    from deploy.machine import find_runtime
    from sparsegpt_cli.jobs.benchmarking import BenchmarkSettings, benchmark_files
    from sparsegpt_core.files import write_json

    limits = quality.limits(min_speedup)
    if out:
        o.require_free(out, dense, sparse, data.data, eval_data, force=force)
    source = data.source(eval_data)
    backend, why = find_runtime(runtime)
    console.say(f"runtime: {why if backend else f'ONNX Runtime, {why}'}")
    chosen = "tensorrt" if backend else "onnxruntime" if runtime == "auto" else runtime
    latency_batches = tuple(dict.fromkeys(engine_batch or ()))
    long = timing.settings(quick=chosen == "onnxruntime")
    settings = BenchmarkSettings(chosen, eval_samples, batch_size, latency_batches, long, console.seed)
    on_engines, metric = engines.settings(building.settings()), o.load_metric(quality.metric, console)
    with console.progress() as progress:
        result = benchmark_files(dense, sparse, source, settings, progress, on_engines, console.say, metric)
    failures = limits.quality_failures(result.compared.to_json(), result.judged)
    failures += limits.speedup_failures(result.speedup["A_to_C"], result.runtime)
    content = {**result.to_json(), **limits.verdict(failures)}
    if out:
        write_json(out, content)
    for warning in result.warnings:
        console.warn(warning)
    timings = [content, *content["further_batches"]]
    latencies = [latency_table(each, content["runtime"]) for each in timings]
    lines: list[Any] = [*quality_tables(content), *latencies]
    if result.explanation:
        lines += explanation_lines(result.explanation, verbose)
    further = [timed.verdict for timed in result.timed[1:] if timed.verdict]
    run = sparse.parent
    following = ("report", run) if out and out.parent == run and (run / "prune.json").is_file() else ("build", sparse)
    console.result(content, [*lines, result.verdict, *further, next_step(*following)])
    if failures:
        console.error("; ".join(failures))
        raise typer.Exit(1)
