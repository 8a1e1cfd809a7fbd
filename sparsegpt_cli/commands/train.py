"""``train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparsegpt_cli import options as o
from sparsegpt_cli.framework import command
from sparsegpt_cli.terminal import Console

__all__ = ["train"]


@command
def train(
    console: Console,
    model: Annotated[
        str, typer.Option(help="A reference network, torchvision:NAME, timm:NAME or package.module:factory.")
    ],
    out: Annotated[Path, typer.Option(help="The .safetensors file for the best epoch's weights.")],
    weights: Annotated[Path | None, typer.Option(help="Weights to start from; random ones if not given.")] = None,
    data: o.Data = "digits",
    data_root: o.DataRoot = None,
    eval_data: o.EvalData = None,
    mean: o.Mean = None,
    std: o.Std = None,
    image_size: o.ImageSize = None,
    channels: o.Channels = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training split.")] = 10,
    batch_size: o.BatchSize = 128,
    learning_rate: Annotated[float, typer.Option(help="The largest of the schedule.")] = 0.05,
    weight_decay: Annotated[float, typer.Option(min=0)] = 5e-4,
    schedule: Annotated[str, typer.Option(help="one-cycle or cosine.")] = "one-cycle",
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16.")] = "auto",
    label_smoothing: Annotated[float, typer.Option(min=0)] = 0.0,
    ema: Annotated[
        float, typer.Option(min=0, help="Keep an exponential moving average of the weights with this decay; 0: none.")
    ] = 0.0,
    augment: Annotated[str, typer.Option(help="auto, none, crop or crop-flip.")] = "auto",
    device: o.Device = "auto",
) -> None:
    """Train a dense baseline; the best epoch by a share held out of the training split is kept."""
    from calibration.training import TrainSettings
    from sparsegpt_cli.jobs.datasets import DataSource
    from sparsegpt_cli.jobs.models import pick_device
    from sparsegpt_cli.jobs.training import train_model

    o.require_suffix(out, ".safetensors", weights, data, eval_data)
    settings = TrainSettings(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        schedule=schedule,
        precision=precision,
        label_smoothing=label_smoothing,
        ema=ema,
        augment=augment,
        seed=console.seed,
        device=str(pick_device(device)),
    )
    options = DataSource(data, data_root, eval_data, mean, std, image_size, channels)
    content = train_model(model, options, settings, out, console, weights)
    lines = [
        f"{out}: best of {epochs} epochs is {content['best_epoch']}, validation {content['validation_top1']:.2f} %"
    ]
    if content["evaluation"]:
        lines.append(f"evaluation: top-1 {content['evaluation']['top1']:.2f} % of {content['evaluation']['samples']}")
    lines.append(f"learning curve: {content['curve']}")
    console.result(content, lines)
