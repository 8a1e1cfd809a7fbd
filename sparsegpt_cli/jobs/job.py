"""A pruning job, everything that its results depend on, and the metadata of its files."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from calibration.data import Data
from deploy.measure import Metric
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
    samples: int | None = None
    """Calibration images; None: 256, or all if there are fewer."""
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
    """What :func:`~sparsegpt_cli.jobs.preflight.check_job` found; settings are named in backticks."""

    @property
    def calibration_samples(self) -> int:
        """The number of calibration images."""
        return self.samples or min(_DEFAULT_SAMPLES, len(self.data.training))


def pruning_identity(job: Job) -> dict[str, Any]:
    """Return everything that the pruned layers depend on, as JSON."""
    settings = {**asdict(job.settings), **asdict(job.workflow), "pattern": str(job.settings.pattern)}
    return {
        **model_metadata(job.model, job.data),
        "samples": job.calibration_samples,
        "seed": job.seed,
        "device": str(job.device),
        "tf32": job.tf32,
        "int8": job.int8,
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
        "image": list(model.image),
        "mean": list(data.mean),
        "std": list(data.std),
        "data": data.spec,
        "source_sha256": model.weights_sha256,
        **source,
        **model.build_metadata(),
    }


def run_identity(job: Job) -> dict[str, Any]:
    """Return everything that a run's files depend on, as JSON. A resumed run reports what changed in it."""
    comparison: dict[str, Any] = {
        "eval_samples": job.eval_samples,
        "batch_size": job.batch_size,
        "baseline": job.baseline,
    }
    if job.metric:
        comparison["metric"] = job.metric.name
    metric = {"metric": job.metric.name} if job.metric else {}
    return {**pruning_identity(job), **asdict(job.export), **comparison, **metric}
