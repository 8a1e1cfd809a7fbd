"""A pruning job, its checks, everything that its results depend on, and the metadata of its files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from calibration.data import Data, EvaluationSplit, Labels, TrainingSplit, subset_indices
from calibration.evaluation import lower_limit, outputs_of
from calibration.sampling import augmentation_for, calibration_batches, images_by_need
from deploy.measure import Metric
from export.exporter import ExportSettings
from sparsegpt_cli.jobs.gains import Target
from sparsegpt_cli.jobs.models import LoadedModel, missing_weights
from sparsegpt_cli.messages import Messages
from sparsegpt_core import __version__
from sparsegpt_core.errors import DataError
from sparsegpt_core.execution import device_of
from sparsegpt_core.network import Layer, eval_mode, from_arrays, plan_layers
from sparsegpt_core.pruning import PruneResult
from sparsegpt_core.quality import Workflow
from sparsegpt_core.settings import PruneSettings
from sparsegpt_core.user_code import source_sha256
from sparsegpt_core.zoo import runs_code

__all__ = [
    "Job",
    "check_job",
    "check_network",
    "code_identity",
    "model_metadata",
    "number_of_classes",
    "pruning_identity",
    "pruning_metadata",
    "run_identity",
    "run_network",
    "shipped_metadata",
]

_DEFAULT_SAMPLES = 256
_IMAGES = 256  # on which the dense network is compared with chance
_FEWEST_IMAGES = 50  # with which a network that is right by luck is told apart
_FIRST_IMAGES = 64  # where the network is clearly better on them, the others are not needed
_CLEARLY = 2  # times chance: the lower limit of such a network
_BATCH_IMAGES = 32


@dataclass(frozen=True)
class Job:
    """The inputs of a pruning run."""

    model: LoadedModel
    """The dense network. It is pruned in place."""
    data: Data
    """The images to calibrate and evaluate on."""
    settings: PruneSettings
    """How each layer is pruned."""
    device: torch.device
    """Where to prune."""
    workflow: Workflow = field(default_factory=Workflow)
    """Steps before and after the layers are pruned."""
    target: Target | None = None
    """The GPU that decides which layers pay. None: every layer that can be pruned is."""
    samples: int | None = None
    """Calibration images; None: 256, or all if there are fewer. :func:`check_job` replaces None by what the network
    needs."""
    eval_samples: int = 2000
    """Evaluation images; 0 takes all."""
    batch_size: int = 64
    """Images at a time for evaluation."""
    seed: int = 0
    """Seed of all draws of images, and of the search for channel orders."""
    baseline: bool = True
    """Whether to prune by magnitude too, for comparison."""
    command: str = ""
    """The command line, for the report."""
    memory_limit: int | None = None
    """In bytes; None: most of the free memory."""
    tf32: bool = False
    """Whether the GPU may compute in TF32."""
    export: ExportSettings = field(default_factory=ExportSettings)
    """How ONNX files are written."""
    int8: bool = False
    """Whether to export INT8 too."""
    metric: Metric | None = None
    """Compared beside accuracy, or beside output errors where the outputs are no logits."""
    warnings: tuple[str, ...] = ()
    """What :func:`check_job` found; settings are named in backticks."""

    @property
    def calibration_samples(self) -> int:
        """The number of calibration images."""
        return self.samples or min(_DEFAULT_SAMPLES, len(self.data.training))


def pruning_identity(job: Job) -> dict[str, Any]:
    """Return everything that the pruned layers depend on, as JSON."""
    settings = {**asdict(job.settings), **asdict(job.workflow), "pattern": str(job.settings.pattern)}
    return {
        **model_metadata(job.model, job.data),
        **code_identity(job.model.spec),
        "samples": job.calibration_samples,
        "seed": job.seed,
        "device": str(job.device),
        "tf32": job.tf32,
        "int8": job.int8,
        "target": asdict(job.target) if job.target else None,
        **settings,
    }


def pruning_metadata(job: Job, result: PruneResult) -> dict[str, Any]:
    """Return the metadata of a pruned checkpoint."""
    return {
        **model_metadata(job.model, job.data),
        "pattern": str(job.settings.pattern),
        "method": job.settings.method,
        "pruned": [layer.name for layer in result.layers if layer.status == "pruned"],
        "dense": {layer.name: layer.reason for layer in result.layers if layer.reason},
    }


def model_metadata(model: LoadedModel, data: Data) -> dict[str, Any]:
    """Return the metadata of every file with the model, without dates: equal runs give equal bytes."""
    source = {"source_key": model.weights_key} if model.weights_key else {}
    return {
        "tool_version": __version__,
        "model": model.spec,
        **data.metadata(),
        "data": data.spec,
        "source_sha256": model.weights_sha256,
        **source,
        **model.build_metadata(),
    }


def shipped_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata of an ONNX file, which goes to other machines: of absolute paths only the last part.

    Example:
        >>> shipped_metadata({"data": "npz:/home/ada/val.npz", "model": "nets/mine.py:net"})
        {'data': 'npz:val.npz', 'model': 'nets/mine.py:net'}
    """
    return {**metadata, **{key: _without_folders(metadata[key]) for key in ("data", "model") if key in metadata}}


def _without_folders(spec: str) -> str:
    return ":".join(PurePath(part).name if part.startswith(("/", "~")) else part for part in spec.split(":"))


def run_identity(job: Job) -> dict[str, Any]:
    """Return everything that a run's files depend on, as JSON. A resumed run reports what changed in it."""
    comparison: dict[str, Any] = {
        "eval_samples": job.eval_samples,
        "batch_size": job.batch_size,
        "baseline": job.baseline,
    }
    if job.metric:
        comparison |= {"metric": job.metric.name, **code_identity(job.metric.name)}
    return {**pruning_identity(job), **asdict(job.export), **comparison}


def code_identity(spec: str) -> dict[str, Any]:
    """Return the SHA-256 of the file of a user's model or metric, under its name; empty for what is built in."""
    return {spec: source_sha256(spec)} if runs_code(spec) else {}


def check_job(job: Job, messages: Messages, evaluates: bool = False) -> Job:
    """Return the job with its warnings, and with as many images as the network needs unless the user gave a number.

    Warnings that :func:`~sparsegpt_cli.jobs.models.load` did not give are given here.

    Args:
        job: The job.
        messages: Takes the warnings.
        evaluates: As for :func:`check_network`.

    Raises:
        ModelError: The model does not take the images, or there is nothing to prune.
        DataError: As for :func:`check_network`.
        InputError: A glob matches no layer.
    """
    (image,) = calibration_batches(job.data.training, 1, 1, job.seed)
    layers = plan_layers(job.model.module, image, job.settings)
    if job.samples is None and job.settings.refit:
        job = _with_needed_images(job, layers)
    found = check_network(job.model, job.data, job.device, messages, evaluates, job.eval_samples, job.seed)
    if job.model.metadata.get("pruned"):
        pattern = job.model.metadata.get("pattern", "a pattern")
        found.append(f"the weights are pruned already, to {pattern}: what is called dense here has their zeros")
        messages.warn(found[-1])
    missing = [] if job.model.weights else [missing_weights(job.model.spec)]
    return replace(job, warnings=(*missing, *found))


def _with_needed_images(job: Job, layers: Sequence[Layer]) -> Job:
    """Draw further images, where there are some, in place of views of the first 256."""
    views, data = job.workflow.views, job.data
    makes_views = not data.channels_last and augmentation_for(data.spec) != "none"
    wanted = _DEFAULT_SAMPLES * (1 + views if makes_views else 1)
    images = images_by_need(layers, len(data.training), job.settings.positions_per_column, fewest=wanted)
    if makes_views:
        views = min(views, max(0, wanted // images - 1))
    return replace(job, samples=images, workflow=replace(job.workflow, views=views))


def check_network(
    model: LoadedModel,
    data: Data,
    device: torch.device,
    messages: Messages,
    evaluates: bool = True,
    samples: int = 0,
    seed: int = 0,
    is_dense: bool = True,
) -> list[str]:
    """Check that a classifier fits its data, and return the warnings that it gives.

    Args:
        model: The network, on the CPU.
        data: Its data.
        device: Where to run the network.
        messages: Takes the warnings.
        evaluates: Whether accuracy on the evaluation split is measured. Else the training split is checked.
        samples: Evaluation images; 0 takes all.
        seed: Seed of the draw of images.
        is_dense: Whether the network must be better than chance.

    Raises:
        DataError: The model has no output for a label of the evaluation split, or an image cannot be read.
    """
    (image,) = calibration_batches(data.training, 1, 1, seed)
    split = data.evaluation if evaluates and data.evaluation else data.training
    outputs = number_of_classes(run_network(model.module, image))
    found = []
    if outputs is not None and split.labels is not None:
        if isinstance(split, EvaluationSplit):
            _check_labels(split.labels, outputs)
        found += _unused_outputs(data, outputs)
        if is_dense and (model.weights or runs_code(model.spec)):
            found += _chance(model.module, split, device, samples, seed)
    for warning in found:
        messages.warn(warning)
    return found


def run_network(module: nn.Module, image: Tensor) -> list[Any]:
    """Return the network's outputs for an image (1, C, H, W)."""
    with eval_mode(module), torch.inference_mode():
        return tree_leaves(module(image.to(device_of(module))))


def number_of_classes(outputs: Sequence[Any]) -> int | None:
    """Return the number of classes, from the outputs for one image; None for a network that is no classifier."""
    if len(outputs) != 1 or not isinstance(outputs[0], Tensor) or outputs[0].ndim != 2:
        return None
    return outputs[0].shape[1] if outputs[0].shape[1] > 1 else None


def _check_labels(labels: Labels, outputs: int) -> None:
    if labels.max() >= outputs:
        starts_at_1 = labels.min() == 1 and labels.max() == outputs
        raise DataError(
            f"evaluation labels {labels.min()} to {labels.max()} do not fit a model of {outputs} outputs",
            "Class numbers start at 0: subtract 1 from the labels."
            if starts_at_1
            else "Give the model's own data as `data` or `eval_data`.",
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


def _chance(
    module: nn.Module, split: EvaluationSplit | TrainingSplit, device: torch.device, samples: int, seed: int
) -> list[str]:
    """Return a warning if the dense network is right no more often than chance."""
    labels = split.labels
    classes = 0 if labels is None else len(np.unique(labels))
    if labels is None or classes < 2:
        return []
    chance, largest = 1 / classes, min(samples or _IMAGES, _IMAGES)
    module.to(device)
    for limit in dict.fromkeys((min(largest, _FIRST_IMAGES), largest)):
        indices = subset_indices(split, limit, seed)
        batches = [from_arrays(images) for images, _ in split.batches(_BATCH_IMAGES, indices)]
        right, count = int((outputs_of(module, batches).argmax(1).numpy() == labels[indices]).sum()), len(indices)
        if count >= _FEWEST_IMAGES and lower_limit(right, count) > _CLEARLY * chance:
            break
    module.cpu()  # as it was loaded
    if right > chance * count and (count < _FEWEST_IMAGES or lower_limit(right, count) > chance):
        return []
    kind = "evaluation" if isinstance(split, EvaluationSplit) else "training"
    return [
        f"the dense network is no better than chance: top-1 is {100 * right / count:.2f} % on {count} "
        f"{kind} images of {classes} classes. Check the weights, the order of the classes, `mean` and `std`"
    ]
