"""``prune-export`` and ``prune``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from sparsegpt_cli import options as o
from sparsegpt_cli.framework import command
from sparsegpt_cli.messages import next_step, with_flags
from sparsegpt_cli.terminal import Console, layer_lines, quality_tables
from sparsegpt_core.errors import DataError
from sparsegpt_core.interrupts import no_collection
from sparsegpt_core.torchrun import rank

__all__ = ["prune", "prune_export"]


@command
def prune_export(
    console: Console,
    *,
    out: o.OutFolder,
    of: o.JobOptions,
    pruning: o.PruneOptions,
    export: o.ExportOptions,
    int8: Annotated[bool, typer.Option("--int8", help="Also export sparse.int8.onnx and dense.int8.onnx.")] = False,
    eval_data: o.EvalData = None,
    eval_samples: o.EvalSamples = 2000,
    batch_size: o.BatchSize = 64,
    baseline: Annotated[bool, typer.Option(help="Also prune by magnitude, for comparison: magnitude.onnx.")] = True,
    quality: o.QualityOptions,
    force: o.Force = False,
    verbose: o.Verbose = False,
) -> None:
    """Prune a model, export it to ONNX, compare and report.

    Writes dense and sparse FP32 and FP16 ONNX files, verifies and compares them, and reports.
    """
    with no_collection():
        from sparsegpt_cli.jobs.job import run_identity
        from sparsegpt_cli.jobs.pipeline import RUN_FILES
        from sparsegpt_cli.jobs.pipeline import prune_export as run
        from sparsegpt_cli.jobs.pruning import prune as run_prune
        from sparsegpt_cli.resume import open_unfinished_run

    limits = quality.limits()
    force = o.may_replace(out, force)
    for name in RUN_FILES:
        o.require_free(out / name, of.weights, force=force)
    job = of.job(
        pruning,
        console,
        eval_data,
        evaluates=True,
        eval_samples=eval_samples,
        batch_size=batch_size,
        baseline=baseline,
        export=export.settings(),
        int8=int8,
        metric=o.load_metric(quality.metric, console),
        max_drop=limits.max_drop.get("top1"),
        command=shlex.join(["sparsegpt-trt", *sys.argv[1:]]),
    )
    if (limits or job.metric) and job.data.evaluation is None:
        raise DataError(f"{job.data.spec} has no evaluation split, which --metric and limits need", "Give --eval-data.")
    if rank():  # under torchrun all processes prune together; the first one exports and reports
        run_prune(job)
        return
    with open_unfinished_run(out, run_identity(job), console) as unfinished, console.progress() as progress:
        content = run(job, out, progress, unfinished, console.say)
    for warning in content["warnings"][len(job.warnings) :]:  # the first ones were shown before pruning
        console.warn(warning)
    lines: list[Any] = layer_lines(content["layers"], verbose)
    lines += quality_tables(content)
    pruned = sum(layer["status"] == "pruned" for layer in content["layers"])
    lines.append(f"{pruned} of {len(content['layers'])} layers pruned to {job.settings.pattern}: {out / 'sparse.onnx'}")
    lines.append(f"report: {out / 'report.html'}")
    ending = "int8.onnx" if int8 else "fp16.onnx"
    dense, sparse = (out / f"{arm}.{ending}" for arm in ("dense", "sparse"))
    if job.data.evaluation is None:  # a benchmark needs one
        following = next_step("build", sparse)
    else:
        compared = {"--eval-data": eval_data, "--metric": quality.metric}
        options = [*of.data.flags(), *(text for flag, value in compared.items() if value for text in (flag, value))]
        following = next_step("benchmark", dense, sparse, *options, "--out", out / "benchmark.json")
    lines.append(following)
    failures = [text for version in _sparse_versions(content) for text in limits.quality_failures(content, version)]
    console.result({**content, **limits.verdict(failures)}, lines)
    if failures:
        console.error("; ".join(failures))
        raise typer.Exit(1)


@command
def prune(
    console: Console,
    *,
    out: Annotated[Path, typer.Option(help="The .safetensors file to write.")],
    of: o.JobOptions,
    pruning: o.PruneOptions,
    int8: Annotated[
        bool, typer.Option("--int8", help="Also write NAME.int8.safetensors, for export --precision int8.")
    ] = False,
    force: o.Force = False,
    verbose: o.Verbose = False,
) -> None:
    """Prune a model and write its weights."""
    from export.importing import is_onnx_file
    from sparsegpt_cli.jobs.job import pruning_identity, pruning_metadata
    from sparsegpt_cli.jobs.pruning import prune as run
    from sparsegpt_cli.resume import LAYERS, open_unfinished_run
    from sparsegpt_core.checkpoints import save_checkpoint, save_int8
    from sparsegpt_core.execution import peak_memory

    force = o.may_replace(out, force)
    o.require_suffix(out, ".safetensors", of.weights, force=force)
    o.require_free(out.with_suffix(".int8.safetensors"), of.weights, force=force)
    job = of.job(pruning, console, int8=int8)
    if rank():
        run(job)
        return
    with open_unfinished_run(out, pruning_identity(job), console) as unfinished:
        with console.progress() as progress:
            pruned = run(job, progress, unfinished, unfinished / LAYERS, say=console.say)
        result = pruned.result
        save_checkpoint(out, job.model.module.state_dict(), pruning_metadata(job, result))
        if int8:
            save_int8(out, result.int8_weights)
    for warning in pruned.warnings:
        console.warn(warning)
    layers = [layer.to_json() for layer in result.layers]
    content = {
        "out": str(out),
        "layers": layers,
        **pruned.to_json(),
        "seconds": pruned.seconds,
        "peak_memory_bytes": peak_memory(job.device),
        "spilled_bytes": result.spilled_bytes,
        "warnings": [with_flags(warning) for warning in (*job.warnings, *pruned.warnings)],
    }
    source = ("--model", of.model) if is_onnx_file(of.model) else ()
    half = out.with_suffix(".fp16.onnx")
    following = next_step("export", *source, "--weights", out, "--precision", "fp16", "--out", half)
    console.result(
        content,
        [*layer_lines(layers, verbose), f"{result.pruned} of {len(layers)} layers pruned: {out}", following],
    )


def _sparse_versions(content: dict[str, Any]) -> list[str]:
    """Return the compared versions that limits apply to: the pruned network in each precision."""
    compared = content["accuracy"] or (content["outputs"] or {}).get("relative_errors", {})
    return [name for name in compared if name.partition(".")[0] == "sparse"]
