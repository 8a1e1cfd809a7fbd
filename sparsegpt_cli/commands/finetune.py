"""``finetune``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sparsegpt_cli import options as o
from sparsegpt_cli.framework import command
from sparsegpt_cli.terminal import Console
from sparsegpt_core.errors import InputError

__all__ = ["finetune"]

_METHODS = ("training", "blocks")


@command
def finetune(
    console: Console,
    weights: Annotated[Path, typer.Option(help="A pruned checkpoint, as prune writes it.")],
    out: Annotated[Path, typer.Option(help="The .safetensors file to write.")],
    model: o.Model = "",
    dense: Annotated[
        Path | None, typer.Option(help="The checkpoint that was pruned, to learn from; blocks needs it.")
    ] = None,
    method: Annotated[
        str,
        typer.Option(help="training: the whole network, by labels and --dense; blocks: one after another, by --dense."),
    ] = "training",
    data: o.Data = "digits",
    data_root: o.DataRoot = None,
    eval_data: o.EvalData = None,
    mean: o.Mean = None,
    std: o.Std = None,
    image_size: o.ImageSize = None,
    num_classes: o.NumClasses = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Passes over the training split, by default 1; for blocks at most 20.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images at a time. Default: 128; for blocks 32.")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="The largest of the schedule. Default: by method and optimiser.")
    ] = None,
    optimizer: Annotated[str | None, typer.Option(help="sgd or adamw. Default: sgd.")] = None,
    weight_decay: Annotated[float | None, typer.Option(min=0, help="Default: 5e-4.")] = None,
    schedule: Annotated[str | None, typer.Option(help="cosine or one-cycle. Default: cosine.")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, fp32, bf16 or fp16. Default: auto.")] = None,
    label_smoothing: Annotated[float | None, typer.Option(min=0, help="Default: 0.")] = None,
    ema: Annotated[
        float | None, typer.Option(min=0, help="Decay of an average of the weights, which is then kept. Default: none.")
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option(
            help="train, or eval: with batch norms' running statistics and no dropout, which moves a well pruned "
            "network less than batches' noise. Default: eval with --dense."
        ),
    ] = None,
    augment: Annotated[str | None, typer.Option(help="auto, none, crop or crop-flip. Default: auto.")] = None,
    distill: Annotated[
        float | None, typer.Option(help="What the dense network counts beside the labels, 0 to 1. Default: 0.9.")
    ] = None,
    temperature: Annotated[float | None, typer.Option(help="What logits are softened by. Default: 2.")] = None,
    samples: Annotated[int | None, typer.Option(min=1, help="Images for blocks. Default: 256.")] = None,
    device: o.Device = "auto",
) -> None:
    """Win back what pruning lost: a pruned checkpoint goes on learning with every zero held."""
    from calibration.recovery import ReconstructSettings, finetune_settings
    from sparsegpt_cli.jobs.datasets import DataSource
    from sparsegpt_cli.jobs.finetuning import Blocks, Training, finetune_model
    from sparsegpt_cli.jobs.models import ModelSource, pick_device

    o.require_suffix(out, ".safetensors", weights, dense, data, eval_data)
    if method not in _METHODS:
        raise InputError(f"unknown method '{method}'", f"Use {' or '.join(_METHODS)}.")
    either = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate}
    training = {
        "optimizer": optimizer,
        "weight_decay": weight_decay,
        "schedule": schedule,
        "precision": precision,
        "label_smoothing": label_smoothing,
        "ema": ema,
        "mode": mode,
        "augment": augment,
    }
    place, where = str(pick_device(device)), {"seed": console.seed}
    how: Training | Blocks
    if method == "training":
        _refuse(method, {"samples": samples})
        default = {"mode": "eval" if dense else "train"}
        settings = finetune_settings(**default | _given(either | training), **where, device=place)
        how = Training(settings, distill, temperature)
    else:
        _refuse(method, training | {"distill": distill, "temperature": temperature})
        how = Blocks(ReconstructSettings(**_given(either), **where), samples, place)
    options = DataSource(data, data_root, eval_data, mean, std, image_size)
    content = finetune_model(ModelSource(model, weights, num_classes), dense, options, how, out, console)
    console.result(content, _lines(content))


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _refuse(method: str, options: dict[str, Any]) -> None:
    """Refuse what a method would ignore."""
    for name in _given(options):
        raise InputError(f"--{name.replace('_', '-')} does nothing with --method {method}", "Leave it out.")


def _lines(content: dict[str, Any]) -> list[str]:
    """What people are told."""
    if content["method"] == "training":
        first, last = content["history"][0]["validation_top1"], content["validation_top1"]
        told = f"best epoch {content['best_epoch']}, validation {first:.2f} → {last:.2f} %"
        if content["dense_validation_top1"] is not None:
            told += f", dense {content['dense_validation_top1']:.2f} %"
    else:
        first, last = (content["held_out"][when]["logit_error"] for when in ("before", "after"))
        told = f"{content['kept_blocks']} of {len(content['blocks'])} blocks, error of outputs {first:.1e} → {last:.1e}"
    lines = [f"{content['out']}: {content['pattern']}, {told}"]
    top1 = {name: each["top1"] for name, each in content["evaluation"].items() if each}
    if top1:
        lines.append("evaluation, top-1: " + ", ".join(f"{name} {value:.2f} %" for name, value in top1.items()))
    return [*lines, f"picture: {content['curve']}"]
