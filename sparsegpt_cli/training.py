"""Train a baseline and write its checkpoint."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from calibration.evaluate import evaluate
from calibration.train import TrainSettings
from calibration.train import train as run
from calibration.unfinished import Unfinished
from sparsegpt_cli.console import Console
from sparsegpt_cli.data import DataOptions, open_options
from sparsegpt_core import __version__
from sparsegpt_core.checkpoint import load_checkpoint, load_into, save_checkpoint
from sparsegpt_core.errors import DataError
from sparsegpt_core.zoo import ModelShape, build_model

__all__ = ["train_model"]


def train_model(
    spec: str,
    data: DataOptions,
    settings: TrainSettings,
    out: Path,
    console: Console,
    weights: Path | None = None,
) -> dict[str, Any]:
    """Train, evaluate on the evaluation split where there is one, and write the best epoch's weights.

    Until it is done the training is kept beside ``out``, from where it goes on after a kill.

    ``weights`` are what it starts from, with the normalisation they were trained with; None: random ones.

    Returns:
        What ``train --json`` prints.

    Raises:
        DataError: The data has no labels.
        ModelError: The model cannot be built, does not take the images, or the weights do not fit.
        NumericsError: The loss diverged.
    """
    checkpoint = load_checkpoint(weights) if weights else None
    opened = open_options(data, checkpoint.metadata if checkpoint else {})
    if opened.num_classes is None:
        raise DataError(f"{opened.spec} has no labels to train on", "Use class folders, or an npz with 'labels'.")
    torch.manual_seed(console.seed)
    module = build_model(spec, ModelShape(opened.image_shape, opened.num_classes))
    if checkpoint:
        load_into(module, checkpoint.state)
    key: dict[str, Any] = {
        "model": spec,
        "data": opened.spec,
        "images": opened.image_shape,
        "mean": opened.mean,
        "std": opened.std,
    }
    key |= {"weights": checkpoint.sha256 if checkpoint else None, **asdict(settings)}
    unfinished = Unfinished(out.with_name(f"{out.name}.unfinished"), key)
    state, changed = unfinished.load()
    if changed:
        console.warn(f"an unfinished training was of other settings ({', '.join(changed)}): this one starts anew")
    elif state:
        console.say(f"going on with an unfinished training, after {state['done']} steps")
    with console.progress() as progress:
        result = run(module, opened, settings, progress, unfinished)
        evaluation = None
        if opened.evaluation is not None and opened.evaluation.labels is not None:
            evaluation = evaluate(module, opened.evaluation, device=settings.device, progress=progress).to_json()
    best = result.history[result.best_epoch - 1]
    metadata = {
        "tool_version": __version__,
        "model": spec,
        "num_classes": opened.num_classes,
        "image": list(opened.image_shape),
        "mean": list(opened.mean),
        "std": list(opened.std),
        "data": opened.spec,
        "started_from": checkpoint.sha256 if checkpoint else None,
        "epoch": best.epoch,
        "validation_top1": best.validation_top1,
        "evaluation": evaluation,
    }
    save_checkpoint(out, result.best_state, metadata)
    return {
        "out": str(out),
        "best_epoch": best.epoch,
        "validation_top1": best.validation_top1,
        "evaluation": evaluation,
        "history": [vars(epoch) for epoch in result.history],
    }
