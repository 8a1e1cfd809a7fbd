"""A pruning job: the layers are pruned, and the steps before and after it lose less accuracy."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from calibration.evaluation import DisagreementTarget, Distance, HeldOut, held_out_images
from calibration.recovery import ReconstructResult, ReconstructSettings, reconstruct, reestimate_batchnorm
from calibration.sampling import (
    augmentation_for,
    calibration_batches,
    held_out_batches,
    held_out_indices,
    normalised_black,
    with_views,
)
from calibration.training import Unfinished
from sparsegpt_cli.jobs.gains import PayingLayers, find_paying, has_sparse_kernels
from sparsegpt_cli.jobs.job import Job, run_network
from sparsegpt_cli.jobs.layer_choice import (
    Chosen,
    SelectionStep,
    Trial,
    choose_layers,
    default_limit,
    judging_images,
)
from sparsegpt_core.errors import DataError, ModelError
from sparsegpt_core.execution import Resources, World, full_precision, join_world
from sparsegpt_core.network import GraphNetwork
from sparsegpt_core.permutation import PermutationResult
from sparsegpt_core.progress import Progress, Say, silent, timed
from sparsegpt_core.pruning import (
    LayerChoices,
    PruneResult,
    Tradeoff,
    global_quotas,
    permute_model,
    prune_alone,
    prune_model,
    run_key,
)
from sparsegpt_core.reasons import Reason

__all__ = ["BatchNormChoice", "Pruned", "prune"]

_CALIBRATION_BATCH_IMAGES = 32
_LOOK_AHEAD = "look-ahead"  # the folder of its state, next to that of finished layers
_LEADING_IMAGES = 512  # of calibration, whose classes' leads the noise is compared with
_UNSEEN_ERROR = 16  # times that of the images that calibrate, at most
_TRIAL_SHARE = 0.8  # of the calibration images that trials use, where none are left to hold out


@dataclass(frozen=True)
class BatchNormChoice:
    """Whether new batch-norm statistics bring the pruned network closer to the dense one."""

    kept: Distance
    """The distance to the dense network on held-out images with the running statistics."""
    new: Distance
    """The same with statistics estimated on all calibration images."""
    uses_new: bool
    """Whether the network has the new statistics."""

    def to_json(self) -> dict[str, Any]:
        """Return both distances and the choice."""
        return {"kept": self.kept.to_json(), "new": self.new.to_json(), "uses_new": self.uses_new}


@dataclass(frozen=True)
class Pruned:
    """The outcome of a pruning job. Steps that the job does not ask for are None."""

    result: PruneResult
    """Every layer's outcome."""
    choices: LayerChoices
    """The layers left dense to meet a target, and the quotas of a global budget."""
    seconds: dict[str, float]
    """Wall-clock time by step."""
    warnings: tuple[str, ...] = ()
    """What the user should know; settings are named in backticks."""
    permutation: PermutationResult | None = None
    """The channel orders."""
    batch_norm: BatchNormChoice | None = None
    """The comparison of batch-norm statistics."""
    look_ahead: ReconstructResult | None = None
    """The blocks that were fitted again."""
    paying: PayingLayers | None = None
    """The layers that pay; None: every layer was to be pruned."""
    tradeoff: Tradeoff | None = None
    """Sparsity and time against error for every number of layers left dense."""
    measured: tuple[SelectionStep, ...] = ()
    """The networks that were measured to meet a target, the chosen one last."""
    target: DisagreementTarget | None = None
    """The largest disagreement."""

    def to_json(self) -> dict[str, Any]:
        """Return the steps around pruning; None for a step that the job does not ask for."""
        permutation = curve = None
        if self.permutation is not None:
            permutation = [space.to_json() for space in self.permutation.spaces]
        if self.tradeoff is not None:
            curve = {"points": self.tradeoff.to_json(), "measured": [point.to_json() for point in self.measured]}
        target = self.target.to_json(self.measured[-1].distance.disagreement) if self.target else None
        pruned = [layer.name for layer in self.result.layers if layer.status == "pruned"]
        return {
            "gains": self.paying.to_json(pruned) if self.paying else None,
            "permutation": permutation,
            "batch_norm": None if self.batch_norm is None else self.batch_norm.to_json(),
            "look_ahead": None if self.look_ahead is None else self.look_ahead.to_json(),
            "tradeoff": curve,
            "target": target,
        }


def prune(
    job: Job,
    progress: Progress = silent,
    scratch: Path | None = None,
    finished: Path | None = None,
    dense: Path | None = None,
    say: Say = lambda _: None,
) -> Pruned:
    """Prune the job's model in place, calibrated on its training split; ``torchrun`` shares the work.

    Args:
        job: The model, its data and the settings.
        progress: Called for every layer.
        scratch: A folder for activations beyond the memory limit; by default the system's temporary one.
        finished: The folder where finished layers are kept, and found again after a kill; None keeps nothing.
        dense: The dense network's ONNX file, if there is one; else the estimate of what pays exports the network.
        say: Called with the estimate before the layers are pruned.

    Raises:
        InputError: No layer pays, or a target cannot be met.
        DataError: A target must be met on held-out images, and calibration takes all images.
        SparseGPTError: Any other step failed.
    """
    job.model.module.to(job.device)
    with join_world(job.device) as world:
        resources = Resources(job.memory_limit, scratch, job.tf32, world=world, finished=finished)
        paying = world.first(partial(_find_paying, job, dense))
        if paying:
            say(paying.verdict)
        return _prune(job, paying, resources, progress)


def _with_sensitive(choices: LayerChoices, names: Sequence[str]) -> LayerChoices:
    return replace(choices, left_dense={**choices.left_dense, **dict.fromkeys(names, Reason.SENSITIVE)})


def _find_paying(job: Job, dense: Path | None) -> PayingLayers | None:
    """Return the layers that pay; None without a target, or for a pattern without sparse kernels."""
    if job.target is None or not has_sparse_kernels(job.settings.pattern):
        return None
    return find_paying(job.model.module, _draw(job, slice(0, 2))[0], job.settings, job.target, job.export, dense)


def _prune(job: Job, paying: PayingLayers | None, resources: Resources, progress: Progress) -> Pruned:
    model, workflow, world = job.model.module, job.workflow, resources.world
    batches, samples_per_image, warnings = _calibration_batches(job, world)
    # Layers that pay are pruned while their network stays close to the dense one, without another limit.
    judging = None
    if paying is not None and not workflow.selects and job.settings.method == "sparsegpt":
        judging = judging_images(run_network(model, _draw(job, slice(0, 1))[0]))
    limited = judging is not None
    trial_job, trial_batches, held_out = job, batches, None
    if limited and job.calibration_samples == len(job.data.training) > 1:
        trial_job = replace(job, samples=max(1, int(_TRIAL_SHARE * job.calibration_samples)))
        trial_batches, _, _ = _calibration_batches(trial_job, world)
    chooses = limited or workflow.selects
    if chooses or workflow.batch_norm == "auto" or workflow.look_ahead:
        leading = _draw(trial_job, slice(0, _LEADING_IMAGES)) if chooses else []
        held_out = _hold_out(trial_job, world, leading, judging)
    seconds: dict[str, float] = {}

    permutation, choices = None, LayerChoices(left_dense=paying.left_dense if paying else {})
    if workflow.permute:
        with timed(seconds, "permute"):
            permutation, more = _permute(job, batches, choices, progress, resources)
        warnings += more
    looks_ahead = workflow.look_ahead and not isinstance(model, GraphNetwork) and not job.int8
    dense_model = copy.deepcopy(model) if looks_ahead else None  # with the channels in their new order
    if workflow.global_budget:
        with timed(seconds, "budget"):
            quotas = global_quotas(model, batches, job.settings, progress, resources)
        choices = replace(choices, quotas=quotas)

    def prune_network(choices: LayerChoices, batches: list[Tensor]) -> PruneResult:
        result = prune_model(
            model,
            batches,
            job.settings,
            progress,
            resources,
            choices=choices,
            int8_weights=job.int8,
            samples_per_image=samples_per_image,
        )
        for stage, value in result.seconds.items():
            seconds[stage] = seconds.get(stage, 0.0) + value
        return result

    chosen = Chosen()
    if held_out and chooses:
        state, judge = copy.deepcopy(model.state_dict()), held_out

        def prune_except(names: tuple[str, ...]) -> Trial:
            model.load_state_dict(state)
            result = prune_network(_with_sensitive(choices, names), trial_batches)
            with timed(seconds, "judge"):
                return Trial(result, judge.compare(model))

        def errors_alone() -> dict[str, float]:
            model.load_state_dict(state)
            with timed(seconds, "judge"):
                alone = prune_alone(
                    model,
                    trial_batches,
                    job.settings,
                    progress,
                    resources,
                    choices=choices,
                    samples_per_image=samples_per_image,
                )
                return judge.errors(model, alone, progress)

        if trial_job is not job:  # the images that calibrate judge too, where the network is far from the limit
            seen = HeldOut.of(model, _draw(job, slice(0, judging)), None, leading, world)
            result = prune_network(choices, batches)
            with timed(seconds, "judge"):
                error = _UNSEEN_ERROR * seen.compare(model).error
            if default_limit(seen).allows(error):
                chosen = Chosen(result)
        if chosen.result is None:
            chosen = choose_layers(job, paying, held_out, prune_except, errors_alone, limited=limited)
            warnings += chosen.warnings
            if trial_job is not job:  # now with all images
                model.load_state_dict(state)
                chosen = replace(chosen, result=None)
        if trial_job is not job:
            held_out = None
    choices = _with_sensitive(choices, chosen.choice.sensitive if chosen.choice else ())
    result = chosen.result or prune_network(choices, batches)

    batch_norm, more = _choose_batch_norm(job, held_out, seconds)
    look_ahead = None
    if workflow.look_ahead:
        with timed(seconds, "look ahead"):
            look_ahead, obstacle = _look_ahead(job, dense_model, result, held_out, resources, progress)
        more += [f"no look-ahead: {obstacle}"] if obstacle else []
    return Pruned(
        result=result,
        choices=choices,
        paying=paying,
        seconds=seconds,
        warnings=(*warnings, *more, *result.warnings),
        permutation=permutation,
        batch_norm=batch_norm,
        look_ahead=look_ahead,
        tradeoff=chosen.choice.tradeoff if chosen.choice else None,
        measured=chosen.choice.steps if chosen.choice else (),
        target=chosen.target,
    )


def _calibration_batches(job: Job, world: World) -> tuple[list[Tensor], int, list[str]]:
    """Return this process's images with their views, the number of samples for each image, and warnings."""
    share = world.share_samples(job.calibration_samples, _CALIBRATION_BATCH_IMAGES)
    batches, views, data = _draw(job, share), job.workflow.views, job.data
    if not views:
        return batches, 1, []
    if data.channels_last:
        return batches, 1, ["no views: they are made of images (N, C, H, W) only"]
    augmentation = augmentation_for(data.spec)
    if augmentation == "none":
        return batches, 1, [f"no views: it is not known whether images of {data.spec} may be shifted"]
    edges = normalised_black(data.mean, data.std)
    return with_views(batches, views, edges, augmentation == "crop-flip", job.seed, share.start), 1 + views, []


def _draw(job: Job, share: slice = slice(None)) -> list[Tensor]:
    return calibration_batches(job.data.training, job.calibration_samples, _CALIBRATION_BATCH_IMAGES, job.seed, share)


def _hold_out(job: Job, world: World, leading: Sequence[Tensor], count: int | None = None) -> HeldOut | None:
    """Draw held-out images and run the dense network on them; None where calibration takes all images.

    Args:
        job: The job.
        world: The processes.
        leading: Calibration images whose classes' leads count too.
        count: Images to draw, at most; None: as many as the largest disagreement needs.
    """
    count = count or held_out_images(job.workflow.max_disagreement, job.data.sample_size)
    split, samples = job.data.training, job.calibration_samples
    batches = held_out_batches(split, samples, count, job.batch_size, job.seed)
    if batches:
        labels = None
        if split.labels is not None:
            labels = torch.from_numpy(split.labels[held_out_indices(split, samples, count, job.seed)])
        return HeldOut.of(job.model.module, batches, labels, leading, world)
    if job.workflow.selects:
        raise DataError("no training images are left to hold out: calibration takes them all", "Lower --samples.")
    return None


def _permute(
    job: Job, batches: Sequence[Tensor], choices: LayerChoices, progress: Progress, resources: Resources
) -> tuple[PermutationResult | None, list[str]]:
    """Order the model's channels; return the orders and warnings."""
    # A limit in seconds would let processes find different orders.
    limit = job.workflow.permute_seconds if resources.world.size == 1 else float("inf")
    result, obstacle = permute_model(
        job.model.module,
        batches,
        job.settings,
        progress,
        resources,
        left_dense=choices.left_dense,
        limit=limit,
        seed=job.seed,
    )
    if obstacle:
        return result, [f"channels keep their order: {obstacle}"]
    if result and result.cut_off:
        return result, ["the search for channel orders ran out of time; raise --permute-seconds for better orders"]
    return result, []


def _choose_batch_norm(
    job: Job, held_out: HeldOut | None, seconds: dict[str, float]
) -> tuple[BatchNormChoice | None, list[str]]:
    """Keep the running statistics or estimate new ones, as the workflow says; return the choice and warnings."""
    model, wanted = job.model.module, job.workflow.batch_norm
    if wanted == "keep":
        return None, []
    if wanted == "new":
        _reestimate(job, seconds)
        return None, []
    if held_out is None:
        return None, ["batch norm keeps its statistics: calibration leaves no images to compare new ones on"]
    state = copy.deepcopy(model.state_dict())
    with timed(seconds, "judge"):
        kept = held_out.compare(model).distance
    if not _reestimate(job, seconds):
        return None, []
    with timed(seconds, "judge"):
        new = held_out.compare(model).distance
    choice = BatchNormChoice(kept, new, new.logit_error < kept.logit_error)
    if not choice.uses_new:
        model.load_state_dict(state)
    return choice, []


def _look_ahead(
    job: Job,
    dense: nn.Module | None,
    result: PruneResult,
    held_out: HeldOut | None,
    resources: Resources,
    progress: Progress,
) -> tuple[ReconstructResult | None, str]:
    """Fit the kept weights again, block by block, on the first process; return the result, or why there is none."""
    if isinstance(job.model.module, GraphNetwork):
        return None, "ONNX Runtime computes what is between the layers of an ONNX file, and gives no gradients"
    if dense is None:
        return None, "the INT8 weights are rounded from the weights before it"
    if held_out is None:
        return None, "calibration leaves no images to judge it on"
    model, world, finished = job.model.module, resources.world, resources.finished
    batches, unfinished = _draw(job), None
    if finished and world.size == 1:
        key = {"run": run_key(model, [*batches, *held_out.batches], {"seed": job.seed, "device": str(job.device)})}
        unfinished = Unfinished(finished.with_name(_LOOK_AHEAD), key)

    def fit() -> tuple[ReconstructResult | None, str]:
        pruned = [layer.name for layer in result.layers if layer.status == "pruned"]
        settings = ReconstructSettings(seed=job.seed)
        with full_precision(job.tf32):
            try:
                return reconstruct(
                    model,
                    dense,
                    batches,
                    held_out.batches,
                    pruned,
                    job.settings.pattern,
                    settings,
                    progress,
                    unfinished,
                    job.memory_limit,
                ), ""
            except ModelError as error:  # a network without blocks, or too little memory
                return None, str(error)

    outcome = world.first(fit)
    world.spread([*model.state_dict().values()])
    return outcome


def _reestimate(job: Job, seconds: dict[str, float]) -> bool:
    """Estimate new batch-norm statistics on all calibration images; False for a network without batch norm."""
    with timed(seconds, "batch norm"):
        return bool(reestimate_batchnorm(job.model.module, _draw(job)))
