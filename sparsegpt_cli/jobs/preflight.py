"""Checks a job before anything is pruned: whether the model, the data and its labels fit each other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from calibration.data import Data, EvaluationSplit, Labels, TrainingSplit, subset_indices
from calibration.evaluation import lower_limit, outputs_of
from calibration.sampling import calibration_batches
from sparsegpt_cli.jobs.job import Job
from sparsegpt_cli.jobs.models import missing_weights
from sparsegpt_cli.messages import Messages
from sparsegpt_core.errors import DataError
from sparsegpt_core.execution import device_of
from sparsegpt_core.network import eval_mode, plan_layers
from sparsegpt_core.zoo import runs_code

__all__ = ["check_job"]

_IMAGES = 256  # on which the dense network is compared with chance
_FEWEST_IMAGES = 50  # with which a network that is right by luck is told apart
_BATCH_IMAGES = 32


def check_job(job: Job, messages: Messages, evaluates: bool = False) -> Job:
    """Return the job with its warnings. Those that :func:`~sparsegpt_cli.jobs.models.load` did not give are given here.

    Args:
        job: The job.
        messages: Takes the warnings.
        evaluates: Whether the job measures accuracy on the evaluation split. Else the training split is checked.

    Raises:
        ModelError: The model does not take the images, or there is nothing to prune.
        DataError: The model has no output for a label of the evaluation split, or an image cannot be read.
        InputError: A glob matches no layer.
    """
    module, data = job.model.module, job.data
    (image,) = calibration_batches(data.training, 1, 1, job.seed)
    plan_layers(module, image, job.settings)
    split = data.evaluation if evaluates and data.evaluation else data.training
    outputs = _number_of_outputs(module, image)
    found = []
    if outputs is not None and split.labels is not None:
        if isinstance(split, EvaluationSplit):
            _check_labels(split.labels, outputs)
        found += _unused_outputs(data, outputs)
        if job.model.weights or runs_code(job.model.spec):
            found += _chance(job, split)
    for warning in found:
        messages.warn(warning)
    missing = [] if job.model.weights else [missing_weights(job.model.spec)]
    return replace(job, warnings=(*missing, *found))


def _number_of_outputs(module: nn.Module, image: Tensor) -> int | None:
    """Return the number of logits for an image (1, C, H, W); None for a network that is no classifier."""
    with eval_mode(module), torch.inference_mode():
        leaves = tree_leaves(module(image.to(device_of(module))))
    is_classifier = len(leaves) == 1 and isinstance(leaves[0], Tensor) and leaves[0].ndim == 2
    return leaves[0].shape[1] if is_classifier else None


def _check_labels(labels: Labels, outputs: int) -> None:
    if labels.max() >= outputs:
        raise DataError(
            f"evaluation labels {labels.min()} to {labels.max()} do not fit a model of {outputs} outputs",
            "Give the model's own data as `data` or `eval_data`.",
        )


def _unused_outputs(data: Data, outputs: int) -> list[str]:
    """Return a warning if named classes have numbers that the model may use for others."""
    names = data.class_names or ()
    if not 0 < len(names) < outputs:
        return []
    return [
        f"the model has {outputs} outputs, {data.spec} has {len(names)} classes: accuracy is right only if output 0 is "
        f"{names[0]}, and so on. `num_classes={len(names)}` builds a model for these classes"
    ]


def _chance(job: Job, split: EvaluationSplit | TrainingSplit) -> list[str]:
    """Return a warning if the dense network is right no more often than chance."""
    labels, module = split.labels, job.model.module
    classes = 0 if labels is None else len(np.unique(labels))
    if labels is None or classes < 2:
        return []
    indices = subset_indices(split, min(job.eval_samples or _IMAGES, _IMAGES), job.seed)
    batches = [torch.from_numpy(images) for images, _ in split.batches(_BATCH_IMAGES, indices)]
    right = int((outputs_of(module.to(job.device), batches).argmax(1).numpy() == labels[indices]).sum())
    module.cpu()  # as it was loaded
    chance, count = 1 / classes, len(indices)
    if right > chance * count and (count < _FEWEST_IMAGES or lower_limit(right, count) > chance):
        return []
    kind = "evaluation" if isinstance(split, EvaluationSplit) else "training"
    return [
        f"the dense network is no better than chance: top-1 is {100 * right / count:.2f} % on {count} "
        f"{kind} images of {classes} classes. Check the weights, the order of the classes, `mean` and `std`"
    ]
