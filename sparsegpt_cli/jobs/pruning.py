"""A pruning job: the sweep, and what may be done before and after it to lose less."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from calibration.evaluation import Distance, distance, outputs_of
from calibration.recovery import reestimate_batchnorm
from calibration.sampling import augmentation_for, calibration_batches, held_out_batches, normalised_black, with_views
from sparsegpt_cli.jobs.job import Job
from sparsegpt_cli.jobs.layer_choice import SelectionStep
from sparsegpt_core.errors import DataError, InputError
from sparsegpt_core.execution import Resources, World, join_world
from sparsegpt_core.permutation import PermutationResult
from sparsegpt_core.progress import Progress, silent, timed
from sparsegpt_core.pruning import (
    LayerChoices,
    PruneResult,
    Tradeoff,
    fewest,
    global_quotas,
    permute_model,
    prune_model,
)

__all__ = ["BatchNormChoice", "Pruned", "prune"]

_CALIBRATION_BATCH = 32
_HELD_OUT = 512  # training images to judge whole networks by


@dataclass(frozen=True)
class BatchNormChoice:
    """The distances to the dense network on held-out images with kept and with new statistics."""

    kept: Distance
    new: Distance
    uses_new: bool

    def to_json(self) -> dict[str, Any]:
        """Return both distances and the choice."""
        return {"kept": self.kept.to_json(), "new": self.new.to_json(), "uses_new": self.uses_new}


@dataclass(frozen=True)
class Pruned:
    """What became of a job: the layers, and what was done around them; None where it was not asked for."""

    result: PruneResult
    choices: LayerChoices
    seconds: dict[str, float]
    warnings: tuple[str, ...] = ()
    permutation: PermutationResult | None = None
    batch_norm: BatchNormChoice | None = None
    tradeoff: Tradeoff | None = None
    measured: tuple[SelectionStep, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return what was done around the sweep; None for what was not asked for."""
        permutation = curve = None
        if self.permutation is not None:
            permutation = [space.to_json() for space in self.permutation.spaces]
        if self.tradeoff is not None:
            rows = zip(("", *self.tradeoff.names), self.tradeoff.sparsity, self.tradeoff.error, strict=True)
            points = [{"left_dense": name, "sparsity": sparsity, "error": error} for name, sparsity, error in rows]
            curve = {"points": points, "measured": [point.to_json() for point in self.measured]}
        return {
            "permutation": permutation,
            "batch_norm": None if self.batch_norm is None else self.batch_norm.to_json(),
            "tradeoff": curve,
        }


def prune(job: Job, progress: Progress = silent, scratch: Path | None = None, finished: Path | None = None) -> Pruned:
    """Prune the job's model in place, calibrated on its training split; under ``torchrun``, together.

    Args:
        job: What to do.
        progress: Told of every layer.
        scratch: A folder for activations beyond the memory limit; by default the system's temporary one.
        finished: Where layers are kept as they are finished, and found again after a kill; None keeps nothing.

    Raises:
        DataError: A target is to be met on held-out images, and calibration takes them all.
        SparseGPTError: Anything else that went wrong.
    """
    job.model.module.to(job.device)
    with join_world(job.device) as world:
        return _Pruning(job, world, progress, scratch, finished).run()


class _Pruning:
    """One run: the model, its images, its clock and its warnings."""

    def __init__(self, job: Job, world: World, progress: Progress, scratch: Path | None, finished: Path | None) -> None:
        self._job, self._world, self._progress = job, world, progress
        self._model, self._seconds = job.model.module, dict[str, float]()
        self._warnings: list[str] = []
        self._runtime = Resources(job.memory_limit, scratch, job.tf32, world=world, finished=finished)
        share = world.share_samples(job.calibration_samples, _CALIBRATION_BATCH)
        self._batches = self._view(self._draw(share), share.start)
        self._choices = LayerChoices()
        self._held_out: list[Tensor] = []
        self._reference = torch.empty(0)
        if job.workflow.selects or job.workflow.batch_norm == "auto":
            self._hold_out()

    def run(self) -> Pruned:
        workflow = self._job.workflow
        permutation = self._permute() if workflow.permute else None
        if workflow.global_budget:
            with timed(self._seconds, "budget"):
                quotas = global_quotas(self._model, self._batches, self._job.settings, self._progress, self._runtime)
            self._choices = replace(self._choices, quotas=quotas)
        tradeoff, measured = None, list[SelectionStep]()
        if workflow.selects:
            result, tradeoff, measured = self._select()
        else:
            result = self._prune()
        return Pruned(
            result=result,
            choices=self._choices,
            batch_norm=self._choose_batch_norm(),
            seconds=self._seconds,
            warnings=(*self._warnings, *result.warnings),
            permutation=permutation,
            tradeoff=tradeoff,
            measured=tuple(measured),
        )

    def _draw(self, share: slice = slice(None)) -> list[Tensor]:
        job = self._job
        return calibration_batches(job.data.training, job.calibration_samples, _CALIBRATION_BATCH, job.seed, share)

    def _view(self, batches: list[Tensor], first: int) -> list[Tensor]:
        data, views = self._job.data, self._job.workflow.views
        if not views:
            return batches
        augmentation = augmentation_for(data.spec)
        if augmentation == "none":
            self._warnings.append(f"no views: whether images of {data.spec} may be shifted is not known")
            return batches
        edges = normalised_black(data.mean, data.std)
        return with_views(batches, views, edges, augmentation == "crop-flip", self._job.seed, first)

    def _hold_out(self) -> None:
        job = self._job
        self._held_out = held_out_batches(
            job.data.training, job.calibration_samples, _HELD_OUT, job.batch_size, job.seed
        )
        if self._held_out:
            self._reference = outputs_of(self._model, self._held_out)
        elif job.workflow.selects:
            raise DataError("no training images are left to judge by: calibration takes them all", "Lower --samples.")

    def _distance(self) -> Distance:
        with timed(self._seconds, "judge"):
            found = distance(self._reference, outputs_of(self._model, self._held_out))
        numbers = torch.tensor([found.logit_error, found.kl, found.disagreement], dtype=torch.float64)
        self._world.spread([numbers])  # so that all processes decide alike
        return Distance(*numbers.tolist())

    def _permute(self) -> PermutationResult | None:
        # A limit in seconds would let processes come to different orders.
        limit = self._job.workflow.permute_seconds if self._world.size == 1 else float("inf")
        with timed(self._seconds, "permute"):
            result, why = permute_model(
                self._model,
                self._batches,
                self._job.settings,
                self._progress,
                self._runtime,
                limit=limit,
                seed=self._job.seed,
            )
        if why:
            self._warnings.append(f"channels keep their order: {why}")
        elif result and result.cut_off:
            self._warnings.append("the search for channel orders was cut off; --permute-seconds gives it more time")
        return result

    def _prune(self) -> PruneResult:
        result = prune_model(
            self._model,
            self._batches,
            self._job.settings,
            self._progress,
            self._runtime,
            choices=self._choices,
            measure_sensitivity=self._job.workflow.selects,
            int8_weights=self._job.int8,
        )
        for stage, value in result.seconds.items():
            self._seconds[stage] = self._seconds.get(stage, 0.0) + value
        return result

    def _select(self) -> tuple[PruneResult, Tradeoff, list[SelectionStep]]:
        """Leave layers dense, the most sensitive first, until the target is met; each time all is pruned anew."""
        workflow, dense = self._job.workflow, copy.deepcopy(self._model.state_dict())
        result = self._prune()
        tradeoff = Tradeoff.of(result.layers)
        if not tradeoff.names:
            raise InputError(
                f"{self._job.settings.method} tells nothing of a layer's sensitivity", "Use --method sparsegpt."
            )
        measured = [SelectionStep(0, tradeoff.sparsity[0], self._distance())]

        def attempt(count: int) -> None:
            nonlocal result
            self._model.load_state_dict(dense)
            self._choices = replace(self._choices, sensitive=tradeoff.names[:count])
            result = self._prune()
            measured.append(SelectionStep(count, tradeoff.sparsity[count], self._distance()))

        if workflow.sparsity_budget is not None:
            if count := tradeoff.for_sparsity(workflow.sparsity_budget):
                attempt(count)
            return result, tradeoff, measured
        most = workflow.max_disagreement or 0.0
        if measured[0].distance.disagreement <= most:
            return result, tradeoff, measured

        def meets(count: int) -> bool:
            attempt(count)
            return measured[-1].distance.disagreement <= most

        count = fewest(len(tradeoff.names), meets)
        if count == len(tradeoff.names):
            raise InputError(
                f"a disagreement of {most:g} % cannot be met: with one layer pruned it is "
                f"{measured[-1].distance.disagreement:.2f} %",
                "Raise --max-disagreement, or use more --samples or --quality best.",
            )
        if measured[-1].dense != count:  # measured before, but others were tried since
            attempt(count)
            measured = [point for point in measured[:-1] if point.dense != count] + measured[-1:]
        return result, tradeoff, measured

    def _choose_batch_norm(self) -> BatchNormChoice | None:
        """Keep the running statistics, or estimate new ones on all calibration images, as the workflow has it."""
        wanted = self._job.workflow.batch_norm
        if wanted == "auto" and not self._held_out:
            self._warnings.append("batch norm keeps its statistics: calibration leaves no images to judge new ones by")
            return None
        if wanted == "keep":
            return None
        if wanted == "new":
            self._reestimate()
            return None
        before, kept = copy.deepcopy(self._model.state_dict()), self._distance()
        if not self._reestimate():
            return None
        new = self._distance()
        choice = BatchNormChoice(kept, new, new.logit_error < kept.logit_error)
        if not choice.uses_new:
            self._model.load_state_dict(before)
        return choice

    def _reestimate(self) -> bool:
        with timed(self._seconds, "batch norm"):
            return bool(reestimate_batchnorm(self._model, self._draw()))
