"""The options of a pruning job: the model, its calibration data and the machine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparsegpt_cli.jobs.job import Job
    from sparsegpt_cli.terminal import Console
from sparsegpt_cli.options.pruning import PruneOptions
from sparsegpt_cli.options.shared import (
    TF32,
    Channels,
    Data,
    DataRoot,
    Device,
    ImageSize,
    Mean,
    MemoryLimit,
    Model,
    NumClasses,
    Samples,
    Std,
    Weights,
)

__all__ = ["JobOptions"]


@dataclass(frozen=True)
class JobOptions:
    """What the command line says about the model, its calibration data and the machine."""

    model: Model = ""
    weights: Weights = None
    data: Data = "digits"
    data_root: DataRoot = None
    mean: Mean = None
    std: Std = None
    image_size: ImageSize = None
    channels: Channels = None
    num_classes: NumClasses = None
    samples: Samples = None
    device: Device = "auto"
    memory_limit: MemoryLimit = None
    tf32: TF32 = False

    def job(self, pruning: PruneOptions, console: Console, eval_data: str | None = None, **more: Any) -> Job:
        """Load the model and its data and return the job; ``more`` are further fields of it.

        Raises:
            SparseGPTError: An option is wrong, or something cannot be loaded.
        """
        from sparsegpt_cli.jobs.datasets import DataSource
        from sparsegpt_cli.jobs.job import Job
        from sparsegpt_cli.jobs.models import ModelSource, load, pick_device
        from sparsegpt_cli.jobs.profile import idle_layers
        from sparsegpt_cli.options import parse_size

        # What can be wrong without reading a file is told first.
        quality, device = pruning.quality_settings(), pick_device(self.device)
        settings = quality.settings
        limit = parse_size(self.memory_limit) if self.memory_limit else None
        model, data = load(
            ModelSource(self.model, self.weights, self.num_classes),
            DataSource(self.data, self.data_root, eval_data, self.mean, self.std, self.image_size, self.channels),
            console,
            console.seed,
        )
        if pruning.profile:
            idle = idle_layers(pruning.profile, model.module, console)
            settings = replace(settings, exclude=(*settings.exclude, *idle))
        return Job(
            model=model,
            data=data,
            settings=settings,
            device=device,
            workflow=quality.workflow,
            samples=self.samples,
            seed=console.seed,
            memory_limit=limit,
            tf32=self.tf32,
            **more,
        )
