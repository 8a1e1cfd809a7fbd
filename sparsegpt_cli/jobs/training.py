"""Trains a baseline, and writes its checkpoint and its learning curve."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from calibration.data import Data
from calibration.evaluation import evaluate
from calibration.training import TrainSettings, Unfinished
from calibration.training import train as run
from sparsegpt_cli.figures import curve_path, draw_epochs
from sparsegpt_cli.jobs.datasets import DataSource, fingerprint
from sparsegpt_cli.jobs.models import ModelSource, load_and_say, open_images, read_weights
from sparsegpt_cli.messages import Messages
from sparsegpt_cli.resume import locked_file
from sparsegpt_core import __version__
from sparsegpt_core.checkpoints import save_checkpoint
from sparsegpt_core.errors import DataError, ModelError, SparseGPTError
from sparsegpt_core.network import input_names
from sparsegpt_core.progress import Progress
from sparsegpt_core.zoo import ModelShape, build_model, parse_arguments

__all__ = ["data_key", "evaluate_where_possible", "require_labels", "resume", "train_model"]


def train_model(
    model: ModelSource,
    data: DataSource,
    settings: TrainSettings,
    out: Path,
    messages: Messages,
) -> dict[str, Any]:
    """Train, evaluate on the evaluation split if there is one, and write the weights of the best epoch.

    Unfinished training is kept next to ``out``. After a kill, the same call resumes it. The learning curve is written
    next to ``out`` after every epoch.

    Args:
        model: The model, and the checkpoint to start from, with its normalisation. Its classes are those of the data.
        data: The images to train and evaluate on.
        settings: How to train.
        out: The .safetensors file to write.
        messages: Takes messages and progress.

    Returns:
        What ``train --json`` prints.

    Raises:
        DataError: The data has no labels.
        ModelError: The model cannot be built, does not take the images, or the weights do not fit.
        NumericsError: The loss diverged.
    """
    started = time.perf_counter()
    checkpoint = read_weights(model.weights, messages, model.weights_key) if model.weights else None
    opened = open_images(model.spec, data, checkpoint.metadata if checkpoint else {}, messages)
    require_labels(opened)
    torch.manual_seed(settings.seed)
    shape = ModelShape(opened.image_shape, opened.num_classes)
    module = build_model(model.spec, shape, parse_arguments(model.arguments))
    if (inputs := input_names(module)).are_several:
        raise ModelError(
            f"train takes networks of images only, {model.spec} has the inputs {', '.join(inputs.names)}",
            "Train it with your own code; all commands after that take its data by name.",
        )
    if checkpoint:
        load_and_say(module, checkpoint, messages)
    key = {
        "model": [model.spec, *model.arguments],
        "weights": [checkpoint.sha256, checkpoint.key] if checkpoint else None,
        **data_key(opened),
        **asdict(settings),
    }
    curve = curve_path(out)
    with resume(out, key, messages) as unfinished, messages.progress() as progress:
        result = run(module, opened, settings, progress, unfinished, lambda history: draw_epochs(curve, history))
        evaluation = evaluate_where_possible(module, opened, settings.device, progress)
    metadata = {
        "tool_version": __version__,
        "model": model.spec,
        **({"model_args": list(model.arguments)} if model.arguments else {}),
        "num_classes": opened.num_classes,
        **opened.metadata(),
        "data": opened.spec,
        "started_from": checkpoint.sha256 if checkpoint else None,
        "epoch": result.best_epoch,
        "validation_top1": result.best.validation_top1,
        "evaluation": evaluation,
    }
    save_checkpoint(out, result.best_state, metadata)
    return {
        "out": str(out),
        "curve": str(curve),
        "best_epoch": result.best_epoch,
        "validation_top1": result.best.validation_top1,
        "evaluation": evaluation,
        "history": [asdict(epoch) for epoch in result.history],
        "seconds": time.perf_counter() - started,
    }


def require_labels(data: Data) -> None:
    """Check that data has labels.

    Raises:
        DataError: The data has no labels.
    """
    if data.num_classes is None:
        raise DataError(f"{data.spec} has no labels to train on", "Use class folders, or an npz with 'labels'.")


def data_key(data: Data) -> dict[str, Any]:
    """Return the part of an unfinished training's key that depends on the data."""
    shape = {"images": data.image_shape, "mean": data.mean, "std": data.std}
    return {"data": data.spec, "data_sha256": fingerprint(data), **shape}


@contextlib.contextmanager
def resume(out: Path, key: Mapping[str, Any], messages: Messages) -> Iterator[Unfinished]:
    """Lock ``out``, and give the unfinished training next to it; a message says whether it is resumed.

    Args:
        out: The checkpoint that the training will write.
        key: Everything that the result depends on.
        messages: Takes the message.

    Raises:
        InputError: Another training writes to ``out``, or its folder cannot be written.
        DataError: The unfinished training is damaged.
    """
    unfinished = Unfinished(out.with_name(f"{out.name}.unfinished"), key)
    with locked_file(out, "training"):
        state, changed = unfinished.load()
        if changed:
            messages.warn(f"the interrupted training had other settings ({', '.join(changed)}); this one starts again")
        elif state:
            messages.say(f"resuming the interrupted training after {state['done']} steps")
        try:
            yield unfinished
        except SparseGPTError:
            if not unfinished.has_steps:  # nothing to go on from
                unfinished.remove()
            raise


def evaluate_where_possible(module: nn.Module, data: Data, device: str, progress: Progress) -> dict[str, Any] | None:
    """Evaluate on the evaluation split; None if there is none, or it has no labels."""
    if data.evaluation is None or data.evaluation.labels is None:
        return None
    return evaluate(module, data.evaluation, device=device, progress=progress).to_json()
