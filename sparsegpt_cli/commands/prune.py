"""``prune-export`` and ``prune``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from sparsegpt_cli import options as o
from sparsegpt_cli.console import Console
from sparsegpt_cli.tables import accuracy_table, layer_table
from sparsegpt_core.torchrun import rank

__all__ = ["prune", "prune_export"]

_DEFAULT = o.PruneOptions()


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
    pruning: o.PruneOptions = _DEFAULT,
    samples: o.Samples = None,
    eval_samples: o.EvalSamples = 2000,
    batch_size: o.BatchSize = 64,
    device: o.Device = "auto",
    memory_limit: o.MemoryLimit = None,
    tf32: o.TF32 = False,
    baseline: Annotated[bool, typer.Option(help="Also prune by magnitude, to compare: magnitude.onnx.")] = True,
) -> None:
    """The main job: dense and sparse ONNX, their audit, comparison and report, from a trained model."""
    from sparsegpt_cli.data import DataOptions
    from sparsegpt_cli.loading import ModelOptions, load, pick_device
    from sparsegpt_cli.pipeline import prune_export as run
    from sparsegpt_cli.pruning import Job
    from sparsegpt_cli.pruning import prune as help_prune
    from sparsegpt_core.memory import parse_size

    settings = pruning.settings()
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
        pruning.workflow(),
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
    pruning: o.PruneOptions = _DEFAULT,
    samples: o.Samples = None,
    device: o.Device = "auto",
    memory_limit: o.MemoryLimit = None,
    tf32: o.TF32 = False,
) -> None:
    """Prune a model and write its weights."""
    from sparsegpt_cli.data import DataOptions
    from sparsegpt_cli.loading import ModelOptions, load, pick_device
    from sparsegpt_cli.pruning import Job, pruning_metadata
    from sparsegpt_cli.pruning import prune as run
    from sparsegpt_core.checkpoint import save_checkpoint
    from sparsegpt_core.memory import parse_size, peak_memory

    settings = pruning.settings()
    where = pick_device(device)
    limit = parse_size(memory_limit) if memory_limit else None
    o.require_suffix(out, ".safetensors")
    loaded, opened = load(
        ModelOptions(model, weights, num_classes),
        DataOptions(data, data_root, None, mean, std, image_size),
        console,
    )
    job = Job(
        loaded,
        opened,
        settings,
        where,
        pruning.workflow(),
        samples=samples,
        seed=console.seed,
        memory_limit=limit,
        tf32=tf32,
    )
    with console.progress() as progress:
        pruned = run(job, progress, out.parent)
    result = pruned.result
    if rank():
        return
    save_checkpoint(out, loaded.module.state_dict(), pruning_metadata(job, result))
    for warning in pruned.warnings:
        console.warn(warning)
    layers = [layer.to_json() for layer in result.layers]
    content = {
        "out": str(out),
        "layers": layers,
        **pruned.to_json(),
        "seconds": pruned.seconds,
        "peak_memory_bytes": peak_memory(where),
        "spilled_bytes": result.spilled_bytes,
        "warnings": list(pruned.warnings),
    }
    console.result(content, [layer_table(layers), f"{result.pruned} of {len(layers)} layers pruned: {out}"])
