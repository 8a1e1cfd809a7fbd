"""One cell: prune a checkpoint in one way and judge it. What a worker process does."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import torch

from calibration.data import Data
from calibration.sampling import calibration_batches
from sparsegpt_cli.jobs.job import Job
from sparsegpt_cli.jobs.models import LoadedModel
from sparsegpt_cli.jobs.pruning import prune
from sparsegpt_cli.sweep.checkpoints import Subject
from sparsegpt_cli.sweep.evaluation import Evaluator
from sparsegpt_cli.sweep.grid import Cell
from sparsegpt_cli.sweep.methods import CNN_SPARSEGPT, settings_for, workflow_for
from sparsegpt_core.errors import ModelError, NumericsError, SparseGPTError, first_line
from sparsegpt_core.patterns import parse_pattern
from sparsegpt_core.pruning import LayerResult, cnn_sparsegpt

__all__ = ["Task", "compute"]

_LAYER_FIELDS = (
    *("name", "kind", "shape", "status", "reason", "sparsity"),
    *("relative_error", "magnitude_error", "inherited_error", "sensitivity"),
)
_CALIBRATION_BATCH = 32


@dataclass(frozen=True)
class Task:
    """A cell with what a process needs to compute it; ``references`` is the folder of dense outputs."""

    cell: Cell
    subject: Subject
    judge: Evaluator
    references: Path
    threads: int = 1
    memory_limit: int | None = None

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that the result depends on."""
        settings: dict[str, Any] = {}
        if self.cell.method != CNN_SPARSEGPT:
            pattern = parse_pattern(self.cell.pattern)
            settings = {**asdict(settings_for(self.cell.method, pattern)), **asdict(workflow_for(self.cell.method))}
        return {**self.subject.identity, **asdict(self.cell), "settings": settings}


def compute(task: Task) -> dict[str, Any]:
    """Prune and judge; whatever fails is told, not raised.

    Returns:
        ``result``; or ``error`` and ``hint``, one line each.
    """
    torch.set_num_threads(task.threads)
    try:
        return {"result": _compute(task)}
    except SparseGPTError as error:
        return {"error": str(error), "hint": error.hint}
    except MemoryError:
        return {"error": "out of memory", "hint": "Use fewer --jobs, or fewer --samples."}
    except Exception as error:  # a grid goes on whatever one cell meets
        return {"error": f"{type(error).__name__}: {first_line(error)}", "hint": ""}


def _compute(task: Task) -> dict[str, Any]:
    model, data = task.subject.load(task.judge)
    model = replace(model, module=copy.deepcopy(model.module))
    dense = task.subject.read_reference(task.references)
    if dense is None:
        raise ModelError("the dense outputs are gone", "Start the sweep again.")
    start = time.perf_counter()
    layers, warnings = _prune(task, model, data)
    seconds = time.perf_counter() - start
    weights = sum(prod(layer.shape) for layer in layers)
    zeros = sum(layer.sparsity * prod(layer.shape) for layer in layers)
    result = {
        **task.judge.compare(dense, task.judge.outputs(model.module, data), data),
        "sparsity": zeros / weights,
        "seconds": round(seconds, 2),
        "warnings": list(warnings),
        "layers": [{name: getattr(layer, name) for name in _LAYER_FIELDS} for layer in layers],
    }
    try:
        json.dumps(result, allow_nan=False)
    except ValueError:
        raise NumericsError("an error of the pruned network or its layers is too large for a number") from None
    return result


def _prune(task: Task, model: LoadedModel, data: Data) -> tuple[Sequence[LayerResult], Sequence[str]]:
    """Prune the model in place; return its layers and the warnings."""
    cell, device = task.cell, torch.device(task.judge.device)
    pattern, seed = parse_pattern(cell.pattern), cell.seed or 0
    if cell.method == CNN_SPARSEGPT and cell.samples:
        batches = calibration_batches(data.training, cell.samples, _CALIBRATION_BATCH, seed)
        return cnn_sparsegpt(model.module.to(device), [batch.to(device) for batch in batches], pattern), ()
    job = Job(
        model=model,
        data=data,
        settings=settings_for(cell.method, pattern),
        device=device,
        workflow=workflow_for(cell.method),
        samples=cell.samples,
        batch_size=task.judge.batch_size,
        seed=seed,
        memory_limit=task.memory_limit,
    )
    pruned = prune(job)
    return pruned.result.layers, pruned.warnings
