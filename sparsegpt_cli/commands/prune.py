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

if TYPE_CHECKING:
    from sparsegpt_core.settings import PruneSettings

__all__ = ["prune", "prune_export"]

Method = Annotated[str, typer.Option(help="sparsegpt, or magnitude as the baseline.")]


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
    method: Method = "sparsegpt",
    samples: o.Samples = None,
    eval_samples: o.EvalSamples = 2000,
    batch_size: o.BatchSize = 64,
    damping: o.Damping = 0.01,
    include: o.Include = None,
    exclude: o.Exclude = None,
    device: o.Device = "auto",
    baseline: Annotated[bool, typer.Option(help="Also prune by magnitude, to compare: magnitude.onnx.")] = True,
) -> None:
    """The main job: dense and sparse ONNX, their audit, comparison and report, from a trained model."""
    from sparsegpt_cli.data import DataOptions
    from sparsegpt_cli.loading import ModelOptions, load, pick_device
    from sparsegpt_cli.pipeline import Job
    from sparsegpt_cli.pipeline import prune_export as run

    settings = _settings(pattern, method, damping, include, exclude)
    where = pick_device(device)
    loaded, opened = load(
        ModelOptions(model, weights, num_classes),
        DataOptions(data, data_root, eval_data, mean, std, image_size),
        console,
    )
    command = shlex.join(["sparsegpt-trt", *sys.argv[1:]])
    job = Job(loaded, opened, settings, where, samples, eval_samples, batch_size, console.seed, baseline, command)
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
    method: Method = "sparsegpt",
    samples: o.Samples = None,
    damping: o.Damping = 0.01,
    include: o.Include = None,
    exclude: o.Exclude = None,
    device: o.Device = "auto",
) -> None:
    """Prune a model and write its weights."""
    from sparsegpt_cli.data import DataOptions
    from sparsegpt_cli.loading import ModelOptions, load, pick_device
    from sparsegpt_cli.pipeline import Job, pruning_metadata
    from sparsegpt_cli.pipeline import prune as run
    from sparsegpt_core.checkpoint import save_checkpoint

    settings = _settings(pattern, method, damping, include, exclude)
    where = pick_device(device)
    o.require_suffix(out, ".safetensors")
    loaded, opened = load(
        ModelOptions(model, weights, num_classes),
        DataOptions(data, data_root, None, mean, std, image_size),
        console,
    )
    job = Job(loaded, opened, settings, where, samples, seed=console.seed)
    with console.progress() as progress:
        result = run(job, progress)
    save_checkpoint(out, loaded.module.state_dict(), pruning_metadata(job, result))
    for warning in result.warnings:
        console.warn(warning)
    layers = [layer.to_json() for layer in result.layers]
    content = {"out": str(out), "layers": layers, "seconds": result.seconds, "warnings": list(result.warnings)}
    console.result(content, [layer_table(layers), f"{result.pruned} of {len(layers)} layers pruned: {out}"])


def _settings(
    pattern: str, method: str, damping: float, include: list[str] | None, exclude: list[str] | None
) -> PruneSettings:
    from sparsegpt_core.patterns import parse_pattern
    from sparsegpt_core.settings import PruneSettings

    return PruneSettings(
        parse_pattern(pattern), method, damping, include=tuple(include or ()), exclude=tuple(exclude or ())
    )
