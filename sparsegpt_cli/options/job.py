"""The options of a pruning job: the model, its calibration data and the machine."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparsegpt_cli.options.data import DataOptions
from sparsegpt_cli.options.pruning import PruneOptions
from sparsegpt_cli.options.shared import (
    TF32,
    CustomOperators,
    Device,
    MemoryLimit,
    Model,
    ModelArgs,
    NumClasses,
    Weights,
    WeightsKey,
)

if TYPE_CHECKING:
    from sparsegpt_cli.jobs.job import Job
    from sparsegpt_cli.terminal import Console

__all__ = ["JobOptions"]


@dataclass(frozen=True)
class JobOptions:
    """The model, its calibration data and the machine."""

    model: Model = ""
    model_args: ModelArgs = None
    weights: Weights = None
    weights_key: WeightsKey = None
    data: DataOptions = field(default_factory=DataOptions)
    num_classes: NumClasses = None
    samples: Annotated[
        int | None,
        typer.Option(min=1, help="Calibration images.", show_default="by need, 256 or more"),
    ] = None
    device: Device = "auto"
    memory_limit: MemoryLimit = None
    tf32: TF32 = False
    ort_custom_ops: CustomOperators = None

    def job(
        self,
        pruning: PruneOptions,
        console: Console,
        eval_data: str | None = None,
        *,
        evaluates: bool = False,
        max_drop: float | None = None,
        **more: Any,
    ) -> Job:
        """Load the model and its data, and check that they fit each other.

        Args:
            pruning: How to prune.
            console: Takes messages. Its seed is that of the job.
            eval_data: The data set of the evaluation split; None: that of the calibration data.
            evaluates: Whether the job measures accuracy on the evaluation split.
            max_drop: Percentage points of top-1 for which layers are left dense.
            more: Further fields of the job.

        Raises:
            SparseGPTError: An option is wrong, or a file cannot be loaded.
        """
        from sparsegpt_cli.jobs.job import Job, check_job
        from sparsegpt_cli.jobs.models import ModelSource, load
        from sparsegpt_cli.options.sizes import parse_size
        from sparsegpt_core.execution import find_device

        # First what can be wrong without reading a file.
        quality, device = pruning.quality_settings(), find_device(self.device)
        target = pruning.target(more.get("int8", False))
        if pruning.profile and target is None:
            console.say(f"--layers all: {pruning.profile} is not used")
        limit = parse_size(self.memory_limit) if self.memory_limit else None
        model, data = load(
            ModelSource(
                self.model,
                self.weights,
                self.num_classes,
                tuple(self.model_args or ()),
                self.weights_key,
                tuple(map(str, self.ort_custom_ops or ())),
            ),
            self.data.source(eval_data),
            console,
            console.seed,
        )
        job = Job(
            model=model,
            data=data,
            settings=quality.settings,
            device=device,
            workflow=replace(quality.workflow, max_drop=max_drop),
            target=target,
            samples=self.samples,
            seed=console.seed,
            memory_limit=limit,
            tf32=self.tf32,
            **more,
        )
        return check_job(job, console, evaluates)
