"""One cell: a worker process prunes a checkpoint in one way and compares it with the dense network."""

from __future__ import annotations

import copy
import json
import os
import platform
import threading
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
from sparsegpt_cli.messages import with_flags
from sparsegpt_cli.sweep.checkpoints import SweptCheckpoint
from sparsegpt_cli.sweep.evaluation import Evaluator
from sparsegpt_cli.sweep.grid import Cell
from sparsegpt_cli.sweep.methods import CNN_SPARSEGPT, settings_for, workflow_for
from sparsegpt_core import __version__
from sparsegpt_core.errors import InputError, ModelError, NumericsError, SparseGPTError, first_line
from sparsegpt_core.patterns import parse_pattern
from sparsegpt_core.pruning import LayerResult, cnn_sparsegpt

__all__ = ["Task", "compute"]

_LAYER_FIELDS = (
    *("name", "kind", "shape", "status", "reason", "sparsity"),
    *("relative_error", "magnitude_error", "inherited_error", "sensitivity"),
)
_CALIBRATION_BATCH_IMAGES = 32
_ONE_AT_A_TIME = threading.Lock()  # an executor may be one of threads; a cell uses all threads of its process


@dataclass(frozen=True)
class Task:
    """A cell with everything that a process needs to compute it."""

    cell: Cell
    checkpoint: SweptCheckpoint
    evaluator: Evaluator
    dense_outputs: Path
    """The folder of the dense networks' outputs."""
    folder: Path = Path()
    """Where relative paths begin, on any machine."""
    threads: int | None = None
    """PyTorch's threads; None: as the worker has them."""
    memory_limit: int | None = None
    """In bytes; None: most of the free memory."""

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that the result depends on."""
        settings: dict[str, Any] = {}
        if self.cell.method != CNN_SPARSEGPT:
            pattern = parse_pattern(self.cell.pattern)
            settings = {**asdict(settings_for(self.cell.method, pattern)), **asdict(workflow_for(self.cell.method))}
        return {**self.checkpoint.identity, **asdict(self.cell), "settings": settings}


def compute(task: Task) -> dict[str, Any]:
    """Prune and compare. An error is returned, not raised.

    Returns:
        ``result``; or ``error`` and ``hint``, one line each.
    """
    try:
        with _ONE_AT_A_TIME:
            _prepare(task)
            return {"result": _compute(task)}
    except SparseGPTError as error:
        return {"error": with_flags(str(error)), "hint": with_flags(error.hint)}
    except MemoryError:
        return {"error": "out of memory", "hint": "Use fewer --jobs, or fewer --samples."}
    except Exception as error:  # the other cells are computed all the same
        return {"error": f"{type(error).__name__}: {first_line(error)}", "hint": ""}


def _prepare(task: Task) -> None:
    """Make this process one like that of the sweep.

    Raises:
        InputError: This machine has another version of the package, or not the files.
    """
    there, here = task.checkpoint.identity["tool_version"], __version__
    if there != here:
        raise InputError(
            f"sparsegpt-trt {here} is on {platform.node()}, {there} started the sweep", "Install the same everywhere."
        )
    try:
        os.chdir(task.folder)
    except OSError as error:
        raise InputError(
            f"{task.folder} cannot be opened on {platform.node()}: {error.strerror}",
            "Workers need the files of a sweep at the same paths.",
        ) from error
    if task.threads is not None:
        torch.set_num_threads(task.threads)


def _compute(task: Task) -> dict[str, Any]:
    model, data = task.checkpoint.load(task.evaluator)
    model = replace(model, module=copy.deepcopy(model.module))
    dense = task.checkpoint.read_dense_outputs(task.dense_outputs)
    if dense is None:
        raise ModelError("the dense outputs were removed while the sweep ran", "Start the sweep again.")
    start = time.perf_counter()
    layers, warnings = _prune(task, model, data)
    seconds = time.perf_counter() - start
    weights = sum(prod(layer.shape) for layer in layers)
    zeros = sum(layer.sparsity * prod(layer.shape) for layer in layers)
    result = {
        **task.evaluator.compare(dense, task.evaluator.outputs(model.module, data), data),
        "sparsity": zeros / weights,
        "seconds": round(seconds, 2),
        "warnings": [with_flags(warning) for warning in warnings],
        "layers": [{name: getattr(layer, name) for name in _LAYER_FIELDS} for layer in layers],
    }
    try:
        json.dumps(result, allow_nan=False)
    except ValueError:
        raise NumericsError("an error of the pruned network or its layers is NaN or infinite") from None
    return result


def _prune(task: Task, model: LoadedModel, data: Data) -> tuple[Sequence[LayerResult], Sequence[str]]:
    """Prune the model in place; return its layers and the warnings."""
    cell, device = task.cell, torch.device(task.evaluator.device)
    pattern, seed = parse_pattern(cell.pattern), cell.seed or 0
    if cell.method == CNN_SPARSEGPT and cell.samples:
        batches = calibration_batches(data.training, cell.samples, _CALIBRATION_BATCH_IMAGES, seed)
        return cnn_sparsegpt(model.module.to(device), [batch.to(device) for batch in batches], pattern), ()
    job = Job(
        model=model,
        data=data,
        settings=settings_for(cell.method, pattern),
        device=device,
        workflow=workflow_for(cell.method),
        samples=cell.samples,
        batch_size=task.evaluator.batch_size,
        seed=seed,
        memory_limit=task.memory_limit,
    )
    pruned = prune(job)
    return pruned.result.layers, pruned.warnings
