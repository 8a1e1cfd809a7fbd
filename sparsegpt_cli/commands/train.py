"""``train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparsegpt_cli import options as o
from sparsegpt_cli.framework import command
from sparsegpt_cli.messages import next_step
from sparsegpt_cli.terminal import Console

__all__ = ["train"]


_DEFAULTS = o.TrainingOptions(
    epochs=10,
    batch_size=128,
    learning_rate=0.05,
    weight_decay=5e-4,
    schedule="one-cycle",
    precision="auto",
    label_smoothing=0.0,
    ema=0.0,
    augment="auto",
)


@command
def train(
    console: Console,
    *,
    model: Annotated[
        str,
        typer.Option(
            metavar="NAME|CODE",
            help="Reference network, torchvision:NAME, timm:NAME, package.module:factory or FILE.py:factory.",
        ),
    ],
    model_args: o.ModelArgs = None,
    out: Annotated[Path, typer.Option(help="The .safetensors file for the weights of the best epoch.")],
    weights: Annotated[Path | None, typer.Option(help="Weights to start from.", show_default="random ones")] = None,
    weights_key: o.WeightsKey = None,
    data: o.DataOptions,
    eval_data: o.EvalData = None,
    training: o.TrainingOptions = _DEFAULTS,
    force: o.Force = False,
) -> None:
    """Train a dense baseline.

    One tenth of the training images is held out. The weights of the epoch with the best top-1 on them are written.
    """
    from calibration.training import TrainSettings
    from sparsegpt_cli.jobs.models import ModelSource
    from sparsegpt_cli.jobs.training import train_model
    from sparsegpt_core.execution import find_device

    o.require_suffix(out, ".safetensors", weights, data.data, eval_data, force=o.may_replace(out, force))
    settings = TrainSettings(**training.given(), seed=console.seed, device=str(find_device(training.device)))
    source = ModelSource(model, weights, None, tuple(model_args or ()), weights_key)
    content = train_model(source, data.source(eval_data), settings, out, console)
    best = f"best of {settings.epochs} epochs is {content['best_epoch']}"
    lines = [f"{out}: {best}, validation {content['validation_top1']:.2f} %"]
    if content["evaluation"]:
        lines.append(f"evaluation: top-1 {content['evaluation']['top1']:.2f} % of {content['evaluation']['samples']}")
    lines.append(f"learning curve: {content['curve']}")
    named = ("--model", model, *(part for each in model_args or () for part in ("--model-args", each)))
    lines.append(next_step("prune-export", *named, "--weights", out, *data.flags(), "--out", out.with_suffix("")))
    console.result(content, lines)
