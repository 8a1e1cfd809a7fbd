"""What a pruning run is made of, what its results depend on, and what its files note about it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from calibration.data import Data
from export.exporter import ExportSettings
from sparsegpt_cli.jobs.models import LoadedModel
from sparsegpt_core import __version__
from sparsegpt_core.pruning import PruneResult
from sparsegpt_core.quality import Workflow
from sparsegpt_core.settings import PruneSettings

__all__ = ["Job", "model_metadata", "pruning_identity", "pruning_metadata", "run_identity"]

_DEFAULT_SAMPLES = 256


@dataclass(frozen=True)
class Job:
    """Everything that a pruning run is made of.

    ``samples`` None means 256 calibration images, or all where there are fewer; ``eval_samples`` 0 means all.
    ``baseline`` also prunes by magnitude, to compare; ``int8`` also exports INT8. ``memory_limit`` is in bytes; None
    means most of what is free.
    """

    model: LoadedModel
    data: Data
    settings: PruneSettings
    device: torch.device
    workflow: Workflow = field(default_factory=Workflow)
    samples: int | None = None
    eval_samples: int = 2000
    batch_size: int = 64
    seed: int = 0
    baseline: bool = True
    command: str = ""
    memory_limit: int | None = None
    tf32: bool = False
    export: ExportSettings = field(default_factory=ExportSettings)
    int8: bool = False

    @property
    def calibration_samples(self) -> int:
        """How many images are calibrated on."""
        return self.samples or min(_DEFAULT_SAMPLES, len(self.data.training))


def pruning_identity(job: Job) -> dict[str, Any]:
    """What the layers that a job prunes depend on, as JSON can hold it."""
    settings = {**asdict(job.settings), **asdict(job.workflow), "pattern": str(job.settings.pattern)}
    return {
        **model_metadata(job.model, job.data),
        "data": job.data.spec,
        "samples": job.calibration_samples,
        "seed": job.seed,
        "device": str(job.device),
        "tf32": job.tf32,
        "int8": job.int8,
        **settings,
    }


def pruning_metadata(job: Job, result: PruneResult) -> dict[str, Any]:
    """What a pruned checkpoint notes about itself."""
    return {
        **model_metadata(job.model, job.data),
        "pattern": str(job.settings.pattern),
        "method": job.settings.method,
        "pruned": [layer.name for layer in result.layers if layer.status == "pruned"],
        "dense": {layer.name: layer.reason for layer in result.layers if layer.reason},
    }


def model_metadata(model: LoadedModel, data: Data) -> dict[str, Any]:
    """What every file notes about the model it holds; no paths and no dates, so that equal runs give equal bytes."""
    known = {key: model.metadata[key] for key in ("num_classes",) if key in model.metadata}
    return {
        "tool_version": __version__,
        "model": model.spec,
        "image": list(model.image),
        "mean": list(data.mean),
        "std": list(data.std),
        "source_sha256": model.weights_sha256,
        **known,
    }


def run_identity(job: Job) -> dict[str, Any]:
    """What a run's files depend on, as JSON can hold it: of what has changed since, an unfinished run tells."""
    judged = {"eval_samples": job.eval_samples, "batch_size": job.batch_size, "baseline": job.baseline}
    return {**pruning_identity(job), **asdict(job.export), **judged}
