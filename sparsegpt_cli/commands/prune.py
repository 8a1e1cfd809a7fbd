"""``prune-export`` and ``prune``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparsegpt_cli import options as o
from sparsegpt_cli.console import Console
from sparsegpt_cli.tables import accuracy_table, layer_table
from sparsegpt_core.torchrun import rank

if TYPE_CHECKING:
    from sparsegpt_core.settings import PruneSettings

__all__ = ["prune", "prune_export"]


@o.command
def prune_export(
    console: Console,
    out: Annotated[Path, typer.Option(help="The folder to write to.")],
    model: o.Model = "",
    weights: o.Weights = None,
    data: o.Data = "digits",
    data_root: o.DataRoot = None,
    eval_data: o.EvalData = None,
    mean: o.Mean = None,
    std: o.Std = None,
    image_size: o.ImageSize = None,
    num_classes: o.NumClasses = None,
    pattern: o.Pattern = "2:4",
    method: o.Method = "sparsegpt",
    alpha: o.Alpha = 1.0,
    refit: o.Refit = True,
    samples: o.Samples = None,
    eval_samples: o.EvalSamples = 2000,
    batch_size: o.BatchSize = 64,
    damping: o.Damping = 0.01,
    positions_per_column: o.Positions = 80,
    include: o.Include = None,
    exclude: o.Exclude = None,
    device: o.Device = "auto",
    memory_limit: o.MemoryLimit = None,
    tf32: o.TF32 = False,
    baseline: Annotated[bool, typer.Option(help="Also prune by magnitude, to compare: magnitude.onnx.")] = True,
) -> None:
    """The main job: dense and sparse ONNX, their audit, comparison and report, from a trained model."""
    from sparsegpt_cli.data import DataOptions
    from sparsegpt_cli.loading import ModelOptions, load, pick_device
    from sparsegpt_cli.pipeline import Job
    from sparsegpt_cli.pipeline import prune as help_prune
    from sparsegpt_cli.pipeline import prune_export as run
    from sparsegpt_core.memory import parse_size

    settings = _settings(pattern, method, alpha, refit, damping, positions_per_column, include, exclude)
    where = pick_device(device)
    limit = parse_size(memory_limit) if memory_limit else None
    loaded, opened = load(
        ModelOptions(model, weights, num_classes),
        DataOptions(data, data_root, eval_data, mean, std, image_size),
        console,
    )
    command = shlex.join(["sparsegpt-trt", *sys.argv[1:]])
    job = Job(
        loaded,
        opened,
        settings,
        where,
        samples=samples,
        eval_samples=eval_samples,
        batch_size=batch_size,
        seed=console.seed,
        baseline=baseline,
        command=command,
        memory_limit=limit,
        tf32=tf32,
    )
    if rank():  # under torchrun one process exports and reports, the others only help it prune
        help_prune(job)
        return
    with console.progress() as progress:
        content = run(job, out, progress)
    for warning in content["warnings"]:
        console.warn(warning)
    lines: list[Any] = [layer_table(content["layers"])]
    if content["accuracy"]:
        lines.append(accuracy_table(content["accuracy"]))
    pruned = sum(layer["status"] == "pruned" for layer in content["layers"])
    lines.append(f"{pruned} of {len(content['layers'])} layers pruned to {settings.pattern}: {out / 'sparse.onnx'}")
    lines.append(f"report: {out / 'report.html'}")
    console.result(content, lines)


@o.command
def prune(
    console: Console,
    out: Annotated[Path, typer.Option(help="The .safetensors file to write.")],
    model: o.Model = "",
    weights: o.Weights = None,
    data: o.Data = "digits",
    data_root: o.DataRoot = None,
    mean: o.Mean = None,
    std: o.Std = None,
    image_size: o.ImageSize = None,
    num_classes: o.NumClasses = None,
    pattern: o.Pattern = "2:4",
    method: o.Method = "sparsegpt",
    alpha: o.Alpha = 1.0,
    refit: o.Refit = True,
    samples: o.Samples = None,
    damping: o.Damping = 0.01,
    positions_per_column: o.Positions = 80,
    include: o.Include = None,
    exclude: o.Exclude = None,
    device: o.Device = "auto",
    memory_limit: o.MemoryLimit = None,
    tf32: o.TF32 = False,
) -> None:
    """Prune a model and write its weights."""
    from sparsegpt_cli.data import DataOptions
    from sparsegpt_cli.loading import ModelOptions, load, pick_device
    from sparsegpt_cli.pipeline import Job, pruning_metadata
    from sparsegpt_cli.pipeline import prune as run
    from sparsegpt_core.checkpoint import save_checkpoint
    from sparsegpt_core.memory import parse_size, peak_memory

    settings = _settings(pattern, method, alpha, refit, damping, positions_per_column, include, exclude)
    where = pick_device(device)
    limit = parse_size(memory_limit) if memory_limit else None
    o.require_suffix(out, ".safetensors")
    loaded, opened = load(
        ModelOptions(model, weights, num_classes),
        DataOptions(data, data_root, None, mean, std, image_size),
        console,
    )
    job = Job(loaded, opened, settings, where, samples=samples, seed=console.seed, memory_limit=limit, tf32=tf32)
    with console.progress() as progress:
        result = run(job, progress, out.parent)
    if rank():
        return
    save_checkpoint(out, loaded.module.state_dict(), pruning_metadata(job, result))
    for warning in result.warnings:
        console.warn(warning)
    layers = [layer.to_json() for layer in result.layers]
    content = {
        "out": str(out),
        "layers": layers,
        "seconds": result.seconds,
        "peak_memory_bytes": peak_memory(where),
        "spilled_bytes": result.spilled_bytes,
        "warnings": list(result.warnings),
    }
    console.result(content, [layer_table(layers), f"{result.pruned} of {len(layers)} layers pruned: {out}"])


def _settings(
    pattern: str,
    method: str,
    alpha: float,
    refit: bool,
    damping: float,
    positions_per_column: float,
    include: list[str] | None,
    exclude: list[str] | None,
) -> PruneSettings:
    from sparsegpt_core.patterns import parse_pattern
    from sparsegpt_core.settings import PruneSettings

    return PruneSettings(
        pattern=parse_pattern(pattern),
        method=method,
        alpha=alpha,
        refit=refit,
        damping=damping,
        positions_per_column=positions_per_column,
        include=tuple(include or ()),
        exclude=tuple(exclude or ()),
    )
