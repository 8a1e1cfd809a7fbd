"""``finetune``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from sparsegpt_cli import options as o
from sparsegpt_cli.framework import choice, command
from sparsegpt_cli.messages import next_step
from sparsegpt_cli.terminal import Console, metrics_table
from sparsegpt_core.errors import InputError

if TYPE_CHECKING:
    from sparsegpt_cli.jobs.finetuning import Blocks, Training

__all__ = ["finetune"]

_METHODS = ("training", "blocks")
_OF_BOTH = ("epochs", "batch_size", "learning_rate")  # options of both methods; the others belong to one


@command
def finetune(
    console: Console,
    *,
    weights: Annotated[Path, typer.Option(help="Pruned checkpoint, as prune writes it.")],
    out: Annotated[Path, typer.Option(help="The .safetensors file to write.")],
    model: o.Model = "",
    model_args: o.ModelArgs = None,
    dense: Annotated[
        Path | None, typer.Option(help="Dense checkpoint that was pruned, to learn from; blocks needs it.")
    ] = None,
    method: Annotated[
        str,
        choice(
            *_METHODS,
            help="training: the whole network, from labels and --dense; blocks: block by block, from --dense.",
            rich_help_panel="Training",
        ),
    ] = "training",
    data: o.DataOptions,
    eval_data: o.EvalData = None,
    metric: o.MetricName = None,
    num_classes: o.NumClasses = None,
    training: o.TrainingOptions,
    optimizer: Annotated[str | None, choice("sgd", "adamw", help="Optimizer.")] = None,
    mode: Annotated[
        str | None,
        choice("train", "eval", help="eval: batch norms use their running statistics, and dropout is off."),
    ] = None,
    distill: Annotated[
        float | None, typer.Option(help="Weight of the dense network in the loss, 0 to 1; the labels have the rest.")
    ] = None,
    temperature: Annotated[float | None, typer.Option(help="Divides the logits that --distill compares.")] = None,
    samples: Annotated[int | None, typer.Option(min=1, help="Images for blocks.")] = None,
    force: o.Force = False,
) -> None:
    """Train a pruned checkpoint further, with fixed zeros.

    Defaults of --method training: 1 epoch, batches of 128, sgd with weight decay 5e-4 and a cosine schedule; with
    --dense --mode eval, --distill 0.9 and --temperature 2. The learning rate depends on mode and optimizer.

    Defaults of --method blocks: at most 20 epochs on 256 images, batches of 32, learning rate 0.01.
    """
    from sparsegpt_cli.jobs.finetuning import finetune_model
    from sparsegpt_cli.jobs.models import ModelSource

    o.require_suffix(out, ".safetensors", weights, dense, data.data, eval_data, force=o.may_replace(out, force))
    if method not in _METHODS:
        raise InputError(f"unknown method '{method}'", f"Use {' or '.join(_METHODS)}.")
    own = {"optimizer": optimizer, "mode": mode, "distill": distill, "temperature": temperature}
    given = training.given() | {name: value for name, value in own.items() if value is not None}
    if method == "training":
        _refuse(method, [] if samples is None else ["samples"])
        how: Training | Blocks = _training(given, dense is not None, training.device, console.seed)
    else:
        _refuse(method, given.keys() - set(_OF_BOTH))
        how = _blocks(given, samples, training.device, console.seed)
    source = ModelSource(model, weights, num_classes, tuple(model_args or ()))
    measured = o.load_metric(metric, console)
    content = finetune_model(source, dense, data.source(eval_data), how, out, console, measured)
    half = out.with_suffix(".fp16.onnx")
    named = ("--model", model) if model else ()
    following = next_step("export", *named, "--weights", out, "--precision", "fp16", "--out", half)
    console.result(content, [*_lines(content), following])


def _training(given: dict[str, Any], has_dense: bool, device: str, seed: int) -> Training:
    from calibration.recovery import finetune_settings
    from sparsegpt_cli.jobs.finetuning import Training
    from sparsegpt_core.execution import find_device

    distillation = {"distill": given.pop("distill", None), "temperature": given.pop("temperature", None)}
    default = {"mode": "eval" if has_dense else "train"}
    settings = finetune_settings(**default | given, seed=seed, device=str(find_device(device)))
    return Training(settings, **distillation)


def _blocks(given: dict[str, Any], samples: int | None, device: str, seed: int) -> Blocks:
    from calibration.recovery import ReconstructSettings
    from sparsegpt_cli.jobs.finetuning import Blocks
    from sparsegpt_core.execution import find_device

    return Blocks(ReconstructSettings(**given, seed=seed), samples, str(find_device(device)))


def _refuse(method: str, names: Iterable[str]) -> None:
    """Refuse options that a method would ignore."""
    for name in sorted(names):
        raise InputError(f"--{name.replace('_', '-')} does nothing with --method {method}", "Leave it out.")


def _lines(content: dict[str, Any]) -> list[str | Table]:
    """What a terminal shows of the result."""
    if content["method"] == "training":
        first, last = content["history"][0]["validation_top1"], content["validation_top1"]
        said = f"best epoch {content['best_epoch']}, validation {first:.2f} → {last:.2f} %"
        if content["dense_validation_top1"] is not None:
            said += f", dense {content['dense_validation_top1']:.2f} %"
    else:
        first, last = (content["held_out"][when]["logit_error"] for when in ("before", "after"))
        said = f"{content['kept_blocks']} of {len(content['blocks'])} blocks, error of outputs {first:.1e} → {last:.1e}"
    lines: list[str | Table] = [f"{content['out']}: {content['pattern']}, {said}"]
    top1 = {name: each["top1"] for name, each in content["evaluation"].items() if each}
    if top1:
        lines.append("evaluation, top-1: " + ", ".join(f"{name} {value:.2f} %" for name, value in top1.items()))
    if content["metrics"]:
        lines.append(metrics_table(content["metrics"]))
    return [*lines, f"picture: {content['curve']}"]
